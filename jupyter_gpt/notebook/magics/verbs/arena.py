"""`%gpt arena`: models against each other, judged blind, and a leaderboard."""

from __future__ import annotations

from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.magics import prompt
from jupyter_gpt.notebook.magics.compare import PROMPT, SAMPLING
from jupyter_gpt.notebook.magics.options import OUT, Command, Option

ARENA = Command(
    name="%gpt arena",
    summary="blind votes between models, and a leaderboard of Elo",
    about=(
        "Every two of the models answer each prompt, and a form asks which answer is better, without saying whose is "
        "whose; or a judge votes. Each vote is kept at once, and the same line goes on where it stopped. The "
        "leaderboard has Elo from a Bradley-Terry model of all votes, with intervals by bootstrap over prompts. "
        "Models behind a server (%gpt config endpoint) may join."
    ),
    groups=(
        (
            "Models and votes",
            (
                Option("MODEL", "the models, two or more", complete="models", many=True, needed=True),
                Option(
                    "--prompts",
                    "a $variable with a list of prompts, or a text file with one a line (default: eight of our own)",
                    "FILE",
                    complete="files",
                    kept=True,
                ),
                Option(
                    "--judge",
                    "a $function(prompt, completion) that scores, higher for the better, or a model that is "
                    "asked which is better, in both orders",
                    "JUDGE",
                    complete="models",
                    kept=True,
                ),
                Option("--by", "who votes", "WHO", default="person"),
                Option(
                    "--rankings",
                    "the name under which the votes are kept (default: arena-MODEL-MODEL)",
                    "NAME",
                    complete="rankings",
                ),
                Option("--no-form", "only the leaderboard, no votes asked for", kind=None),
                Option(
                    "--overwrite",
                    "ask these in the place of the questions that another cell asked under these rankings; votes "
                    "that were given are kept",
                    kind=None,
                ),
                OUT,
            ),
        ),
        ("Sampling", tuple(prompt.COMMAND.flags[name] for name in SAMPLING if name != "--samples")),
        ("Prompt", tuple(prompt.COMMAND.flags[name] for name in PROMPT)),
    ),
    examples=(
        "%gpt arena base assistant aligned --prompts $questions --max-tokens 60",
        "%gpt arena assistant aligned --judge $polite",
    ),
)


def arena(gpt, given: dict, ip) -> object:
    """Samples, shows the leaderboard and, where a person is there, the voting form; the result is the arena."""
    from jupyter_gpt.notebook.views.rank import Page

    options = {name: value for name, value in given.items() if name not in ("model", "out", "no_form", "prompts")}
    if "rankings" in options:
        options["name"] = options.pop("rankings")
    with Page() as page:
        found = gpt.arena(given["model"], prompts_of(given.get("prompts")), tick=page.working, **options)
        page.show(found, form="no_form" not in given)
    return found


def prompts_of(given: object) -> list[str]:
    """The prompts of a list, or of a file of one a line; none for None. Raises GPTError for anything else."""
    if given is None:
        return []
    if isinstance(given, str):
        path = Path(given).expanduser()
        if not path.is_file():
            raise GPTError(f"--prompts {given}: there is no such file")
        try:
            given = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise GPTError(f"--prompts {path} is not UTF-8 text: byte {error.start} cannot be read") from error
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        raise GPTError("--prompts wants a list of texts as $name, or a text file with one a line")
    found = [text.strip() for text in given if text.strip()]
    if not found:
        raise GPTError("--prompts holds no prompt: give one at least, or leave it out")
    return found
