"""`%%compare`: the same prompts to several models, side by side, and a person's vote for the better."""

from __future__ import annotations

from jupyter_gpt.notebook.magics import prompt
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import OUT, Command, Option, parse

SAMPLING = (
    "--samples",
    "--temperature",
    "--top-p",
    "--top-k",
    "--min-p",
    "--max-tokens",
    "--min-tokens",
    "--stop",
    "--seed",
)
PROMPT = ("--system", "--as-assistant", "--few-shot", "--truncate")

COMMAND = Command(
    name="%%compare",
    summary="several models' answers to the same prompts, side by side",
    about=(
        "Gives each prompt to each model, with the same seeds, and shows the completions in columns with "
        "their differing words tinted. Beside the table a form asks which is better, without saying whose "
        "is whose; each vote is kept at once under the rankings' name, from which a reward model can be "
        "trained. The cell waits for nobody: run it again to go on voting."
    ),
    groups=(
        (
            "Models and votes",
            (
                Option("MODEL", "the models to compare, two or more", complete="models", many=True, needed=True),
                Option("--rankings", "the name under which the votes are kept (default: MODEL-vs-MODEL)", "NAME"),
                Option("--no-form", "only the table, no votes asked for", kind=None),
                OUT,
            ),
        ),
        ("Sampling", tuple(prompt.COMMAND.flags[name] for name in SAMPLING)),
        ("Prompt", tuple(prompt.COMMAND.flags[name] for name in PROMPT)),
    ),
    body="""
One prompt a line; empty lines are skipped. {variable} is filled from the notebook.
""",
    sketch=("prompt", "…"),
    examples=(
        "%%compare storyteller smollm2 --max-tokens 60",
        "Once upon a time",
        "The capital of France is",
    ),
)


def run(ip, line: str, cell: str) -> None:
    """Samples, shows the table and, where a person is there, the voting form."""
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt
    from jupyter_gpt.data.render import fill
    from jupyter_gpt.notebook.views.rank import Page

    models, out, form = given.pop("model"), given.pop("out", None), not given.pop("no_form", False)
    prompts = [fill(text.strip(), ip.user_ns)[0] for text in cell.splitlines() if text.strip()]
    with Page() as page:
        comparison = gpt.compare(models, prompts, tick=page.working, **given)
        bind(ip, out, comparison)
        page.show(comparison, form=form)
