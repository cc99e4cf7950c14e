"""`%%rag`: a question answered from an index, with the source of each sentence."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import number
from jupyter_gpt.notebook.magics import prompt
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import OUT, Command, Option, parse
from jupyter_gpt.notebook.magics.verbs.index import RETRIEVAL

OWN = (
    "MODEL",
    "--history",
    "--truncate",
    "--dry-run",
    "--out",
    "--temperature",
    "--tools",
    "--approve",
    "--react",
    "--allow",
    "--steps",
)

COMMAND = Command(
    name="%%rag",
    summary="answer a question from documents, with sources",
    about=(
        "Finds the chunks of an index that are nearest to the question, puts those that fit into the prompt, best "
        "first, "
        "and asks a model to answer from them. Each sentence of the answer is then held against its sources: one is "
        "supported where what it adds to the question, its words, numbers, names and negations, stands in a "
        "source; any other "
        "is marked, with the reason. Where nothing near the question is found, the answer is "
        '"I don\'t know" and no model is asked. Documents are quoted as data: what they say is no instruction.'
    ),
    groups=(
        (
            "Model and index",
            (
                Option("MODEL", "the model or endpoint to ask (default: the one made or used last)", complete="models"),
                Option("--index", "where to look", "NAME", needed=True, complete="indexes"),
                *RETRIEVAL,
                Option(
                    "--near",
                    "the cosine from which on a chunk is near (default: what questions about other things reach "
                    "by chance, measured when the index was made)",
                    "COSINE",
                    number,
                ),
                Option(
                    "--history", "the question follows up on the last; it is rewritten to stand by itself", kind=None
                ),
                Option("--dry-run", "show the exact prompt and send nothing", kind=None),
                Option(
                    "--temperature", "0 always takes the likeliest token (default: 0, with --samples 0.7)", "T", number
                ),
                OUT,
            ),
        ),
        *tuple(
            (title, tuple(o for o in options if o.name not in OWN))
            for title, options in prompt.COMMAND.groups
            if any(o.name not in OWN for o in options)
        ),
    ),
    body="""
The question. {variable} is filled from this notebook.
""",
    sketch=("the question",),
    examples=(
        "%%rag assistant --index docs --k 4",
        "How many days of leave do I have?",
    ),
)


def run(ip, line: str, cell: str) -> None:
    """Finds, asks, checks and shows, the answer as it grows; an interrupted answer is kept, and the cell passes."""
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt
    from jupyter_gpt.notebook.views.completion import Writing, prompt_bundle
    from jupyter_gpt.notebook.views.index_map import index_map
    from jupyter_gpt.notebook.views.sources import answer_bundle

    out = given.pop("out", None)
    with Writing() as writing:
        answer = gpt.rag(cell, variables=ip.user_ns, on_token=writing.show, **given)
        if given.get("dry_run") and answer.completion is not None:
            writing.put(prompt_bundle(answer.completion))
        else:
            kept = gpt.indexes[answer.index]
            question = kept.vectors([answer.asked])[0]
            writing.put(answer_bundle(answer, index_map(kept, question, answer.hits or answer.left)))
    bind(ip, out, answer)
