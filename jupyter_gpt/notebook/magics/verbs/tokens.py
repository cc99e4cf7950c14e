"""`%gpt tokens` and `%gpt batch`: what a model really reads."""

from __future__ import annotations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.lexer import whole
from jupyter_gpt.notebook.magics.notebook import show
from jupyter_gpt.notebook.magics.options import OUT, Command, Option
from jupyter_gpt.notebook.views import inspect as look

TOKENS = Command(
    name="%gpt tokens",
    summary="a text as a model's tokens",
    about="Shows the text as coloured tokens with their integers, their count and the bytes a token.",
    groups=(
        (
            "Options",
            (
                Option("MODEL", "the model whose tokenizer reads it", complete="models", needed=True),
                Option("TEXT", "the text, in quotes; or a $variable", many=True, needed=True),
                OUT,
            ),
        ),
    ),
    examples=('%gpt tokens storyteller "Once upon a time"',),
)
BATCH = Command(
    name="%gpt batch",
    summary="rows of the batches that a run reads",
    about=(
        "Draws some rows as the run reads them: documents end to end, one colour a document, the delimiter "
        "marked, and one cell with all it may attend to and its target."
    ),
    groups=(
        (
            "Options",
            (
                Option("RUN", "the run's name", complete="runs", needed=True),
                Option("--rows", "rows to draw", "N", whole, default=4),
                Option("--cols", "tokens of each row to draw", "N", whole, default=10),
                Option("--seed", "draw rows from the whole run, which ones by this (default: its first)", "S", whole),
                OUT,
            ),
        ),
    ),
    examples=("%gpt batch storyteller --rows 3",),
)


def tokens(gpt, given: dict, ip) -> list[int]:
    """Shows the tokens; the result is their integers."""
    found = look.tokens(gpt, given["model"], " ".join(given["text"]))
    show(found.report)
    return found


def batch(gpt, given: dict, ip) -> object:
    """Shows the rows; the result is the batch they are the top of, `(B, T+1)` token ids."""
    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.notebook.views.batch import batch_bundle

    run, drawn, columns = gpt.runs[given["run"]], given.get("rows", 4), given.get("cols", 10)
    if drawn < 1 or columns < 2:
        raise GPTError(f"%gpt batch draws at least one row of two tokens, not {drawn} of {columns}")
    rows = look.batch(gpt, run.name, rows=drawn, seed=given.get("seed"))
    documents = Documents.open(run.folder / "data")
    report = batch_bundle(
        rows,
        documents.tokenizer(),
        documents.eot,
        name=run.name,
        varies=look.varies(gpt, run.name),
        shown_rows=drawn,
        shown_columns=columns,
    )
    show(report)
    return rows
