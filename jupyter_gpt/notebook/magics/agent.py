"""`%%agent`: gives a model a goal, and shows the tree of what it plans and does."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import whole
from jupyter_gpt.notebook.magics import prompt
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import OUT, Command, Option, parse

SAMPLING = ("--temperature", "--top-p", "--top-k", "--min-p", "--max-tokens", "--seed")
PROMPT = ("--system", "--as-assistant", "--few-shot", "--truncate", "--dry-run")


def taken(*names: str) -> tuple[Option, ...]:
    """Options of `%%prompt` that mean the same here."""
    return tuple(option for _, group in prompt.COMMAND.groups for option in group if option.name in names)


COMMAND = Command(
    name="%%agent",
    summary="give a model a goal and tools",
    about=(
        "The model writes a list of tasks, works off the first with the tools, remembers its result, and looks at the "
        "list again: adds, takes out, reorders; a part that is a goal of its own gets a list of its own. It ends when "
        "the list is empty, at --tasks or at a budget, with what there is; the notebook's ■ does the same. What a tool "
        "does is contained: its errors, its time and its output are bounded, and Python runs in a sandbox."
    ),
    groups=(
        ("Model", taken("MODEL")),
        ("Tools", (*prompt.TOOLS, Option("--steps", "turns of one task at most", "N", whole, default=12))),
        (
            "List",
            (
                Option("--tasks", "tasks worked off at most, on all levels together", "N", whole, default=10),
                Option("--levels", "lists within the list, itself one", "N", whole, default=2),
            ),
        ),
        prompt.BUDGETS,
        ("Sampling", taken(*SAMPLING)),
        ("Prompt", (*taken(*PROMPT), OUT)),
    ),
    body="""
The goal. {variable} is filled from this notebook.
""",
    sketch=("the goal",),
    examples=(
        "%%agent assistant --tools calculator,search,$order --max-calls 40",
        "Find out which of the two offers is cheaper a kilo, and order that one.",
    ),
)


def run(ip, line: str, cell: str) -> None:
    """Works on the goal, showing the tree as it grows; an interrupted agent keeps what it found, and the cell
    passes.
    """
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt
    from jupyter_gpt.notebook.views.approval import Asking
    from jupyter_gpt.notebook.views.trace import trace_bundle, unsent_bundle
    from jupyter_gpt.notebook.views.trace_live import Growing

    out = given.pop("out", None)
    with Growing() as growing, Asking() as person:
        done = gpt.agent(cell.strip("\n"), variables=ip.user_ns, on_trace=growing.show, person=person, **given)
        growing.put(unsent_bundle(done) if given.get("dry_run") else trace_bundle(done))
    bind(ip, out, done)
