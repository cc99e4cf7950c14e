"""`%gpt tokens` and `%gpt batch`: what a model really reads."""

from __future__ import annotations

import random

from jupyter_gpt.errors import GPTError
from jupyter_gpt.magics.notebook import show
from jupyter_gpt.magics.options import OUT, Command, Option
from jupyter_gpt.magics.words import whole

FAR = 100_000  # rows: to lay out more, just to draw some of them, takes longer than a look is worth

TOKENS = Command(
    name="%gpt tokens",
    summary="a text as a model's tokens",
    about="Shows the text as coloured tokens with their integers, their count and the bytes a token.",
    groups=(("Options", (
        Option("MODEL", "the model whose tokenizer reads it", complete="models", needed=True),
        Option("TEXT", "the text, in quotes; or a $variable", many=True, needed=True),
        OUT,
    )),),
    examples=('%gpt tokens storyteller "Once upon a time"',),
)  # fmt: skip
BATCH = Command(
    name="%gpt batch",
    summary="rows of the batches that a run reads",
    about=(
        "Draws some rows as the run reads them: documents end to end, one colour a document, the delimiter "
        "marked, and one cell with all it may attend to and its target."
    ),
    groups=(("Options", (
        Option("RUN", "the run's name", complete="runs", needed=True),
        Option("--rows", "rows to draw", "N", whole, default=4),
        Option("--cols", "tokens of each row to draw", "N", whole, default=10),
        Option("--seed", "draw rows from the whole run, which ones by this (default: its first)", "S", whole),
        OUT,
    )),),
    examples=("%gpt batch storyteller --rows 3",),
)  # fmt: skip


def tokens(gpt, given: dict, ip) -> list[int]:
    """Shows the tokens; the result is their integers."""
    from jupyter_gpt.views.tokens import pieces, tokens_bundle

    name, text = given["model"], " ".join(given["text"])
    found = pieces(gpt.models[name].tokenizer, text)
    show(tokens_bundle(name, found, varies=varies(gpt, name)))
    return [piece.id for piece in found]


def batch(gpt, given: dict, ip) -> object:
    """Shows the rows; the result is the batch they are the top of, `(B, T+1)` token ids."""
    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.data.packing import Rows
    from jupyter_gpt.views.batch import batch_bundle

    run, drawn, columns = gpt.runs[given["run"]], given.get("rows", 4), given.get("cols", 10)
    if drawn < 1 or columns < 2:
        raise GPTError(f"%gpt batch draws at least one row of two tokens, not {drawn} of {columns}")
    if run.kind != "pretrain":
        raise GPTError(f"%gpt batch shows what a pretraining run reads, and {run.name} is of the kind {run.kind}")
    recipe, documents = run.recipe, Documents.open(run.folder / "data")
    size = max(recipe["rows"], drawn)
    indices = range(size)
    if "seed" in given:
        every = min(FAR, recipe["steps"] * recipe["batch_tokens"] // recipe["context"])
        indices = random.Random(given["seed"]).sample(range(max(size, every)), size)
    rows = Rows(documents, recipe["context"], recipe["seed"]).batch(indices)
    bundle = batch_bundle(
        rows, documents.tokenizer(), documents.eot, name=run.name, varies=varies(gpt, run.name),
        shown_rows=drawn, shown_columns=columns,
    )  # fmt: skip
    show(bundle)
    return rows


def varies(gpt, name: str) -> bool:
    """Whether the tokens of run or model `name` may differ from machine to machine.

    They do where the text does (this Python's own source), or how much of it is read (a run by minutes), or
    where the tokenizer came from elsewhere.
    """
    if name not in gpt.runs or gpt.runs[name].kind != "pretrain":
        return True
    recipe = gpt.runs[name].recipe
    by_machine = "python" in recipe["mixture"] or recipe["minutes"] is not None
    return by_machine or recipe["tokenizer"] not in ("bpe", "char")
