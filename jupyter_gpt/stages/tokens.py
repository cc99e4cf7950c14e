"""`%gpt tokens` and `%gpt batch`: what a model really reads."""

from __future__ import annotations

import random
from typing import ClassVar

from jupyter_gpt.errors import GPTError
from jupyter_gpt.options import option
from jupyter_gpt.stages.stage import Bound, Seed

FAR = 100_000  # rows: to lay out more, just to draw some of them, takes longer than a look is worth


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
    rows: int = option(4, "rows to draw", "N")
    cols: int = option(10, "tokens of each row to draw", "N", only="magic")
    seed: Seed | None = option(None, "draw rows from the whole run, which ones by this (default: its first)", "S")


def batch(session, options: Batch):
    """The first `rows` rows that a pretraining run reads, or by `seed` any of the whole run: token ids `(B, T+1)`.

    Raises GPTError for a run of another kind.
    """
    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.data.packing import Rows

    found, rows = session.runs[options.run], options.rows
    if rows < 1:
        raise GPTError(f"a batch has at least one row, not {rows}")
    if found.kind != "pretrain":
        raise GPTError(f"%gpt batch shows what a pretraining run reads, and {found.name} is of the kind {found.kind}")
    recipe, documents = found.recipe, Documents.open(found.folder / "data")
    size = max(recipe["rows"], rows)
    indices = range(size)
    if options.seed is not None:
        every = min(FAR, recipe["steps"] * recipe["batch_tokens"] // recipe["context"])
        indices = random.Random(options.seed).sample(range(max(size, every)), size)
    return Rows(documents, recipe["context"], recipe["seed"]).batch(indices)
