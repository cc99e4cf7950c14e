"""`%%rank`: a model's answers to each prompt, to be put in order by a person in a form, or by a judge."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import whole
from jupyter_gpt.notebook.magics import prompt
from jupyter_gpt.notebook.magics.compare import PROMPT, SAMPLING
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import OUT, Command, Option, parse

COMMAND = Command(
    name="%%rank",
    summary="a model's answers to each prompt, to be ranked by a person or a judge",
    about=(
        "Samples several completions of each prompt and asks in a form which are better: by dragging, by number keys "
        "or by buttons, ties allowed. Their order is shuffled, and whose they are is not told. Each ranking is on disk "
        "at the moment it is given, and the cell waits for nobody: the same cell, run again, goes on where it stopped, "
        "in a new kernel too. A reward model learns from the rankings, and %%rlhf from that. With --judge or "
        "--rankings nobody is asked, so the notebook runs without a person."
    ),
    groups=(
        (
            "Rankings",
            (
                Option("NAME", "the name under which the rankings are kept", needed=True, complete="rankings"),
                Option(
                    "--model",
                    "whose completions; of several, each writes --samples of them",
                    "MODEL",
                    complete="models",
                    many=True,
                ),
                Option("--samples", "completions of each prompt", "K", whole, default=4),
                Option("--by", "who ranks; several labellers' agreement is shown", "WHO", default="person"),
                Option(
                    "--judge",
                    "a $function(prompt, completion) that scores, higher for the better, or a model that is "
                    "asked for the order",
                    "JUDGE",
                    complete="models",
                    kept=True,
                ),
                Option(
                    "--rankings",
                    "take over what this file says of the prompts (of all its own if the body is empty): "
                    "rankings as kept here, or pairs of chosen and rejected",
                    "FILE",
                    complete="files",
                ),
                Option("--no-form", "only the answers there are, no more asked for", kind=None),
                Option(
                    "--overwrite",
                    "ask these in the place of the questions that another cell asked under this NAME; rankings "
                    "that were given are kept",
                    kind=None,
                ),
                OUT,
            ),
        ),
        ("Sampling", tuple(prompt.COMMAND.flags[name] for name in SAMPLING if name != "--samples")),
        ("Prompt", tuple(prompt.COMMAND.flags[name] for name in PROMPT)),
    ),
    body="""
One prompt a line; empty lines are skipped. {variable} is filled from the notebook.

Keys of the form: 1 … 9 put a completion next in the order (or take it out again), = lets
the next one tie with the last, 0 ties all the rest, Enter keeps the ranking, Backspace
takes a step back, u undoes the last ranking, r is for a reason, s or → skips, ← goes
back; on a completion that has the focus ↑ and ↓ move it.
""",
    sketch=("prompt", "…"),
    examples=(
        "%%rank taste --model assistant --samples 4 --max-tokens 60",
        "Tell me about the fox.",
        "Why was Anna sad?",
        "",
        "%%rank taste --model assistant --judge $polite",
        "Tell me about the fox.",
    ),
)


def run(ip, line: str, cell: str) -> None:
    """Samples, shows the answers there are and, where a person is there, the form for those that are missing."""
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt
    from jupyter_gpt.data.render import fill
    from jupyter_gpt.notebook.views.rank import Page

    name, out, form = given.pop("name"), given.pop("out", None), not given.pop("no_form", False)
    if "rankings" in given:
        given["rankings_file"] = given.pop("rankings")
    prompts = [fill(text.strip(), ip.user_ns)[0] for text in cell.splitlines() if text.strip()]
    with Page() as page:
        ranked = gpt.rank(name, prompts, tick=page.working, **given)
        bind(ip, out, ranked)
        page.show(ranked, form=form)
