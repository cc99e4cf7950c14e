"""`%%corpus`: a weighted mixture of sources becomes a corpus, and the data slide's table is its picture."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import whole
from jupyter_gpt.notebook.magics.notebook import bind, show
from jupyter_gpt.notebook.magics.options import OUT, OVERWRITE, Command, Option, parse
from jupyter_gpt.stages.corpus import MIXTURE

COMMAND = Command(
    name="%%corpus",
    summary="a weighted mixture of documents to pretrain on",
    about=(
        "Collects the documents, counts them and shows the table of a data slide: documents, tokens, weight, "
        "share of the sampled batch, epochs. The corpus is kept on disk by its name, for "
        "%%pretrain --corpus NAME."
    ),
    groups=(
        (
            "Corpus",
            (
                Option("NAME", "what to call it: letters, digits, dots, dashes, underscores", needed=True),
                Option("--tokens", "how long a run to reckon the epochs for (10M, 1.5B)", "N", whole),
                Option("--seed", "decides which documents are generated", "S", whole, default=0),
                OVERWRITE,
                OUT,
            ),
        ),
    ),
    body=MIXTURE,
    examples=("%%corpus bedtime --tokens 5M", "stories: 3", "./books/*.txt: 1"),
)


def run(ip, line: str, cell: str) -> None:
    """Declares the corpus and displays its table."""
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt
    from jupyter_gpt.notebook.views.corpus import corpus_bundle

    out = given.pop("out", None)
    corpus = gpt.corpus(mixture=cell, variables=ip.user_ns, **given)
    bind(ip, out, corpus)
    show(corpus_bundle(corpus))
