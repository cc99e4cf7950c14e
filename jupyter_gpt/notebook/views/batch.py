"""The talk's slide of a batch: a (B, T) array of tokens, what one cell may attend to, what it has to predict.

Documents are laid end to end in a row, each in a colour of its own, with `<|endoftext|>` between them. One
cell is green; it attends to the yellow cells, all before it in its row; its target, the next token, is red.
"""

from __future__ import annotations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views.bundle import Bundle, escape, quoted
from jupyter_gpt.notebook.views.table import CODE, columns, pad
from jupyter_gpt.notebook.views.tokens import token_text, visible

SHOWN_COLUMNS, SHOWN_ROWS = 12, 8
LONGEST = 12  # characters of a cell
GREEN, YELLOW, RED = "rgba(46,160,67,0.75)", "rgba(240,190,30,0.40)", "rgba(229,72,77,0.75)"
DOCUMENTS = ("66,133,244", "170,100,200", "40,160,180", "219,112,160", "120,130,150", "150,110,70")
WORDS = {"seen": "sees", "here": "here", "target": "next"}  # beneath the highlighted row of the text grid


def batch_bundle(
    rows,
    tokenizer,
    eot_id: int,
    highlight: tuple[int, int] | None = None,
    *,
    name: str = "",
    varies: bool = False,
    shown_columns: int = SHOWN_COLUMNS,
    shown_rows: int = SHOWN_ROWS,
) -> Bundle:
    """A batch as a grid. rows: (B, T + 1) integers: the inputs, and one token more, the last target.

    highlight: (row, column) of the green cell, counted from 0, column < T; None picks one near the middle.
    Only a window around it is drawn, and which one is said. varies: the tokens may differ from machine to
    machine and are marked. Raises GPTError for an array of another shape and for a cell that is not in it.
    """
    rows = [[int(token) for token in row] for row in rows]
    if not rows or len(rows[0]) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise GPTError("a batch is drawn from a (B, T + 1) array: at least one row, of two tokens or more")
    b, t = len(rows), len(rows[0]) - 1
    row, column = highlight or (min(b, shown_rows) // 2, min(t, shown_columns) * 2 // 3)
    if not (0 <= row < b and 0 <= column < t):
        raise GPTError(f"no cell ({row}, {column}) in a batch of {b} rows and {t} columns, counted from 0")
    left, top = max(0, column + 2 - shown_columns), max(0, row + 1 - shown_rows)
    across = range(left, max(min(t, left + shown_columns), column + 2))  # the red cell too
    down = range(top, min(b, top + shown_rows))

    documents = _documents(rows, eot_id)
    cells = [
        [(_label(tokenizer, rows[r][c], eot_id), _role(r, c, row, column), documents[r][c]) for c in across]
        for r in down
    ]
    place = f"row {row}, column {column}"
    before = f"{column} token{'s' * (column != 1)} before it"
    window = f"rows {down[0]}–{down[-1]}, columns {across[0]}–{across[-1]}"
    count = str(documents[-1][-1] + 1)
    grid, table = _grid(cells, down, across), _table(cells, down, across)
    if varies:
        count, grid, table = quoted(count), quoted(f"\n{grid}\n"), quoted(table)
    title = (f"{name}: " if name else "") + f"a batch of {b} × {t} tokens, {count} documents; {window}"
    text = (
        f"{title}\n\n{grid}\n\nhere: {place}; it sees itself and the {before}, and has to predict the next\n"
        "<|eot|>: <|endoftext|>, the delimiter of documents"
    )
    story = f"{place}: the green token sees itself and the {before}; it has to predict the red one"
    html = f"<p><b>{escape(title)}</b></p>{table}{_legend(story)}"
    tokens = {"tokens": [[rows[r][c] for c in across] for r in down]}
    data = {
        "view": "batch",
        "name": name,
        "shape": [b, t],
        "rows": [down[0], down[-1]],
        "columns": [across[0], across[-1]],
        "highlight": [row, column],
        "varies": varies,
    }
    return Bundle(text, html, data, tokens) if varies else Bundle(text, html, data | tokens)


def _documents(rows: list[list[int]], eot_id: int) -> list[list[int]]:
    """The number of the document each token belongs to; a delimiter opens one, and so does each row."""
    out, number = [], -1
    for row in rows:
        out.append([])
        for place, token in enumerate(row):
            number += place == 0 or token == eot_id
            out[-1].append(number)
    return out


def _role(r: int, c: int, row: int, column: int) -> str:
    if r != row or c > column + 1:
        return ""
    return "seen" if c < column else "here" if c == column else "target"


def _label(tokenizer, token: int, eot_id: int) -> str:
    if token == eot_id:
        return "<|eot|>"
    text = visible(token_text(tokenizer, token))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _grid(cells: list[list[tuple]], down: range, across: range) -> str:
    """The text: a line a row, and beneath the highlighted one what it sees, is, and has to predict."""
    edge = max(len(f"row {r}") for r in down)
    widths = [max(4, len(str(c)), *(columns(line[i][0]) for line in cells)) for i, c in enumerate(across)]

    def line(head: str, texts: list[str]) -> str:
        return (pad(head, edge) + "  " + " ".join(map(pad, texts, widths))).rstrip()

    lines = [line("", [str(c) for c in across])]
    for r, row in zip(down, cells, strict=True):
        lines.append(line(f"row {r}", [label for label, _, _ in row]))
        if any(role for _, role, _ in row):
            lines.append(line("", [WORDS.get(role, "") for _, role, _ in row]))
    return "\n".join(lines)


def _table(cells: list[list[tuple]], down: range, across: range) -> str:
    """The HTML: a box a token, its document's colour also a line beneath it, where another may cover it."""
    head = "".join(f'<th style="color:#888;font-weight:normal;text-align:center">{c}</th>' for c in across)
    out = [f"<tr><th></th>{head}</tr>"]
    for r, row in zip(down, cells, strict=True):
        boxes = [f'<th style="color:#888;font-weight:normal;text-align:right;padding:2px 8px">row {r}</th>']
        for label, role, document in row:
            colour = DOCUMENTS[document % len(DOCUMENTS)]
            back = {"here": GREEN, "seen": YELLOW, "target": RED}.get(role, f"rgba({colour},0.22)")
            style = f"background-color:{back};border-bottom:3px solid rgba({colour},0.8);{BOX}"
            if label == "<|eot|>":
                style += ";font-weight:bold;border-left:3px solid #888"
            title = f"document {document}" + (", the delimiter <|endoftext|>" if label == "<|eot|>" else "")
            boxes.append(f'<td style="{style}" title="{escape(title)}">{escape(label)}</td>')
        out.append("<tr>" + "".join(boxes) + "</tr>")
    return f'<table style="border-collapse:separate;border-spacing:2px;{CODE}">{"".join(out)}</table>'


BOX = "text-align:center;padding:2px 6px;white-space:nowrap"


def _legend(story: str) -> str:
    def sample(colour: str, word: str) -> str:
        return f'<span style="background-color:{colour};padding:1px 6px">{word}</span> '

    samples = sample(GREEN, "a token") + sample(YELLOW, "what it attends to") + sample(RED, "its target")
    return (
        f'<p style="font-size:90%">{samples}&nbsp; one colour a document; <b>&lt;|eot|&gt;</b> is '
        f'&lt;|endoftext|&gt;, the delimiter<br><span style="color:#888">{escape(story)}</span></p>'
    )
