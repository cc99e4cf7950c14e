"""The talk's slide of a batch: a (B, T) array of tokens, what one cell may attend to, what it has to predict.

Documents are laid end to end in a row, each in a colour of its own, with `<|endoftext|>` between them. One cell is
green; it attends to the yellow cells, all before it in its row; its target, the next token, is red.
"""

from __future__ import annotations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views.tokens import token_text, visible
from jupyter_gpt.report.parts import Paragraph, Span, Table, Varies, number, quiet
from jupyter_gpt.report.report import Report

SHOWN_COLUMNS, SHOWN_ROWS = 12, 8
LONGEST = 12  # characters of a cell
GREEN, YELLOW, RED = "rgba(46,160,67,0.75)", "rgba(240,190,30,0.40)", "rgba(229,72,77,0.75)"
DOCUMENTS = ("66,133,244", "170,100,200", "40,160,180", "219,112,160", "120,130,150", "150,110,70")
TINTS = {"sees": YELLOW, "here": GREEN, "next": RED}


def batch_report(
    rows,
    tokenizer,
    eot_id: int,
    highlight: tuple[int, int] | None = None,
    *,
    name: str = "",
    varies: bool = False,
    shown_columns: int = SHOWN_COLUMNS,
    shown_rows: int = SHOWN_ROWS,
) -> Report:
    """A batch as a grid. rows: (B, T + 1) integers: the inputs, and one token more, the last target.

    highlight: (row, column) of the green cell, counted from 0, column < T; None picks one near the middle. Only a
    window around it is drawn, and which one is said. varies: the tokens may differ from machine to machine and are
    marked. Raises GPTError for an array of another shape and for a cell that is not in it.
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
    lines = []
    for r in down:
        roles = [_role(r, c, row, column) for c in across]
        found = zip(across, roles, strict=True)
        cells = [_cell(_label(tokenizer, rows[r][c], eot_id), role, documents[r][c]) for c, role in found]
        lines.append([quiet(f"row {r}"), *cells])
        if any(roles):
            lines.append(["", *(Span(role, "quiet") for role in roles)])
    table = Table(["", *(quiet(str(c)) for c in across)], lines, "l" * (1 + len(across)))
    before = f"{column} token{'s' * (column != 1)} before it"
    title = [
        *(f"{name}: " * bool(name), f"a batch of {b} × {t} tokens, "),
        *(number(documents[-1][-1] + 1, 0, varies), " documents; "),
        f"rows {down[0]}–{down[-1]}, columns {across[0]}–{across[-1]}",
    ]
    legend = [
        *(Span("here", tint=GREEN), f": row {row}, column {column}; ", Span("sees", tint=YELLOW)),
        *(f": what it attends to, itself and the {before}; ", Span("next", tint=RED), ": its target, the next token"),
    ]
    note = quiet("one colour per document; <|eot|> is <|endoftext|>, the document delimiter")
    parts = [Varies([table]) if varies else table, Paragraph([*legend, "\n", note])]
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
    return Report(title, parts, data, tokens) if varies else Report(title, parts, data | tokens)


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
    return "sees" if c < column else "here" if c == column else "next"


def _label(tokenizer, token: int, eot_id: int) -> str:
    if token == eot_id:
        return "<|eot|>"
    text = visible(token_text(tokenizer, token))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _cell(label: str, role: str, document: int) -> Span:
    """A token on the colour of its role, else of its document."""
    tint = TINTS.get(role, f"rgba({DOCUMENTS[document % len(DOCUMENTS)]},0.22)")
    delimiter = label == "<|eot|>"
    tooltip = f"document {document}" + ", the delimiter <|endoftext|>" * delimiter
    return Span(label, "bold" * delimiter, tint, tooltip)
