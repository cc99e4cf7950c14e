"""`%gpt tokens` and `%gpt batch`: the tokens of a text, and the (B, T) arrays of tokens that a run reads.

The grid of a batch is the talk's slide: documents are concatenated in rows, each in a colour of its own, with
`<|endoftext|>` between them. One cell is green; it attends to the yellow cells, all before it in its row; its target,
the next token, is red.
"""

from __future__ import annotations

import random
from typing import ClassVar

from jupyter_gpt.data.token_text import Piece, pieces, token_text, visible
from jupyter_gpt.errors import GPTError
from jupyter_gpt.options import Count, option
from jupyter_gpt.report.parts import Boxes, Paragraph, Part, Span, Table, Varies, number, quiet
from jupyter_gpt.report.report import Report, Shown
from jupyter_gpt.stages.stage import Bound, Seed

FAR = 100_000  # rows: to lay out more, just to draw some of them, takes longer than a look is worth
DRAWN = 2000  # tokens of a text that are drawn; a longer text says how many are left out
SHOWN_COLUMNS, SHOWN_ROWS = 12, 8  # of a batch
LONGEST = 12  # characters of a cell
COLOURS = ("66,133,244", "219,112,60", "60,170,110", "170,100,200", "200,160,30", "40,160,180")  # of tokens
DOCUMENTS = ("66,133,244", "170,100,200", "40,160,180", "219,112,160", "120,130,150", "150,110,70")
GREEN, YELLOW, RED = "rgba(46,160,67,0.75)", "rgba(240,190,30,0.40)", "rgba(229,72,77,0.75)"
TINTS = {"sees": YELLOW, "here": GREEN, "next": RED}


class Tokens(Bound):
    """a text as a model's tokens

    Shows the text as coloured tokens with their integers, their count and the bytes a token.
    """

    magic: ClassVar[str] = "%gpt tokens"
    examples: ClassVar[tuple[str, ...]] = ('%gpt tokens storyteller "Once upon a time"',)

    model: str = option(..., "the model whose tokenizer reads it", place=True, complete="models")
    text: str = option(..., "the text, in quotes; or a $variable", place=True, many=True)


class Batch(Bound):
    """rows of the batches that a run reads

    Draws some rows as the run reads them: documents end to end, one colour a document, the delimiter marked, and one
    cell with all it may attend to and its target.
    """

    magic: ClassVar[str] = "%gpt batch"
    examples: ClassVar[tuple[str, ...]] = ("%gpt batch storyteller --rows 3",)

    run: str = option(..., "the run's name", place=True, complete="runs")
    rows: Count = option(4, "rows to draw", "N")
    cols: int = option(10, "tokens of each row to draw", "N", only="magic")
    seed: Seed | None = option(None, "draw rows from the whole run, which ones by this (default: its first)", "S")


class TokenList(Shown, list):
    """The integers of a text's tokens; `pieces` has the text and the bytes of each."""

    def __init__(self, model: str, pieces: list[Piece], varies: bool):
        super().__init__(piece.id for piece in pieces)
        self.model, self.pieces, self.varies = model, pieces, varies

    @property
    def report(self) -> Report:
        return tokens_report(self.model, self.pieces, varies=self.varies)


def tokens(session, options: Tokens) -> TokenList:
    """A text as the model's tokens: a list of their integers, with `.pieces`. Raises GPTError for an endpoint, whose
    tokenizer is not known.
    """
    model = options.model
    return TokenList(model, pieces(session.models[model].tokenizer, options.text), varies(session, model))


def varies(session, name: str) -> bool:
    """Whether the tokens of run or model `name` may differ from machine to machine.

    They do where the text does (this Python's own source), or how much of it is read (a run by minutes), or where the
    tokenizer was downloaded.
    """
    if name not in session.runs or session.runs[name].kind != "pretrain":
        return True
    recipe = session.runs[name].recipe
    by_machine = "python" in recipe["mixture"] or recipe["minutes"] is not None
    return by_machine or recipe["tokenizer"] not in ("bpe", "char")


def tokens_report(name: str, found: list[Piece], *, varies: bool = False) -> Report:
    """The tokens of one text under the tokenizer of `name`, coloured, each with its integer.

    `varies` says that the tokenizer may differ from machine to machine.
    """
    size = sum(len(piece.bytes) for piece in found)
    title = [
        *(f"{name}: ", number(len(found), 0, varies), f" token{'s' * (varies or len(found) != 1)}, {size:,} bytes, "),
        *(number(size / len(found) if found else 0.0, 2, varies), " bytes per token"),
    ]
    boxes = []
    for place, piece in enumerate(found[:DRAWN]):
        tint = f"rgba({COLOURS[place % len(COLOURS)]},0.28)"
        boxes.append((visible(piece.text), str(piece.id), tint, f"{piece.id}: {piece.bytes.hex(' ')}"))
        boxes += [None] * min(2, piece.bytes.count(b"\n"))
    more = [Paragraph(f"… and {len(found) - DRAWN:,} more tokens")] if len(found) > DRAWN else []
    data = {"view": "tokens", "name": name, "bytes": size, "varies": varies}
    measured = {"tokens": [{"id": piece.id, "text": piece.text} for piece in found]}
    return _report(title, [Boxes(boxes), *more] if found else [], [], data, measured)


def _report(title, body: list[Part], rest: list[Part], data: dict, measured: dict) -> Report:
    """The body, and what was measured, vary where `data["varies"]`."""
    if data["varies"]:
        return Report(title, [Varies(body), *rest], data, measured)
    return Report(title, [*body, *rest], data | measured)


def batch(session, options: Batch):
    """The first `rows` rows that a pretraining run reads, or by `seed` any of the whole run: token ids `(B, T+1)`.

    Raises GPTError for a run of another kind.
    """
    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.data.packing import Rows

    found, rows = session.runs[options.run], options.rows
    if found.kind != "pretrain":
        raise GPTError(f"%gpt batch shows what a pretraining run reads, and {found.name} is of the kind {found.kind}")
    recipe, documents = found.recipe, Documents.open(found.folder / "data")
    size = max(recipe["rows"], rows)
    indices = range(size)
    if options.seed is not None:
        every = min(FAR, recipe["steps"] * recipe["batch_tokens"] // recipe["context"])
        indices = random.Random(options.seed).sample(range(max(size, every)), size)
    return Rows(documents, recipe["context"], recipe["seed"]).batch(indices)


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
    window around it is drawn, which the title states. varies: the tokens may differ from machine to machine.
    Raises GPTError for an array of another shape and for a cell outside it.
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
    data = {
        "view": "batch",
        "name": name,
        "shape": [b, t],
        "rows": [down[0], down[-1]],
        "columns": [across[0], across[-1]],
        "highlight": [row, column],
        "varies": varies,
    }
    measured = {"tokens": [[rows[r][c] for c in across] for r in down]}
    return _report(title, [table], [Paragraph([*legend, "\n", note])], data, measured)


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
