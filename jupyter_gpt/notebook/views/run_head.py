"""How the report of a run begins: its name, how it stands and how far it came, and what went wrong on the way."""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_gpt.notebook.views.bundle import about, marked, plain, quoted
from jupyter_gpt.runs.run_figures import standing

RED = "#d04545"


def heading(run, kind: str) -> str:
    """`storyteller: pretrain, finished, all 600 steps`."""
    reached = f"all {run.steps} steps" if fixed(run) else f"{about(run.step, 0)} of {about(run.steps, 0)} steps"
    return f"{run.name}: {kind}, {standing(run)}, {reached}"


def fixed(run) -> bool:
    """Whether every machine comes to the same step."""
    return run.status == "finished" and not run.recipe.get("minutes")


def step_of(run, event: dict) -> str:
    """The step of an evaluation, with which each of its figures is shown."""
    step = event.get("step")
    return str(step) if step is not None and fixed(run) else about(step, 0)


def alarms_of(run) -> list[dict]:
    """The first alarm of each cause, which says how often and until when it came back."""
    causes: dict[str, list[dict]] = {}
    for event in run.events:
        if event["event"] == "warning":
            causes.setdefault(event["cause"], []).append(event)
    return [
        {
            **first,
            "text": f"{first['text']} (and {len(more)} times more, the last at step {more[-1]['step']})"
            if more
            else first["text"],
        }
        for first, *more in causes.values()
    ]


def alarm_lines(alarms: Sequence[dict]) -> list[str]:
    """The alarms as lines of text."""
    return [f"! step {about(alarm['step'], 0)}: {quoted(alarm['text'])}" for alarm in alarms]


def alarm_html(alarms: Sequence[dict]) -> list[str]:
    """The alarms as paragraphs of HTML, in red."""
    return [f'<p style="color:{RED}">{marked(alarm_line(alarm))}</p>' for alarm in alarms]


def alarm_line(alarm: dict) -> str:
    return f"step {alarm['step']}: {plain(alarm['text'])}"
