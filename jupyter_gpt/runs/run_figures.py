"""The figures a run is known by, read off its events: defined once, for the live view, the report and every table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

ACTIVE = ("running", "paused", "stopping")  # how a run stands that has not ended
LAST = 10  # steps whose mean is called the training loss
MEAN = f"mean of last {LAST} steps"


def recent(events: Sequence[dict], name: str = "loss") -> float | None:
    """The mean of a metric over the last LAST steps (fewer where there are no more), for one step is as good as its
    batch was easy.
    """
    values = (event.get(name) for event in reversed(events) if event["event"] == "step")
    last = list(islice((value for value in values if value is not None), LAST))
    return sum(last) / len(last) if last else None


def last_of(events: Sequence[dict], kind: str) -> dict:
    """The last event of a kind; an empty one where there is none."""
    return next((event for event in reversed(events) if event["event"] == kind), {})


def diverged(events: Sequence[dict]) -> bool:
    """Whether the loss left its range and was not back when the run ended, or was last heard of."""
    end = last_of(events[-1:], "end")
    causes = end.get("alarms", ()) if end else [e["cause"] for e in events if e["event"] == "warning"]
    return "diverged" in causes


def standing(run) -> str:
    """How a run stands, in words: `finished`, or `finished, diverged`, so that nobody takes its model for a good
    one.
    """
    return f"{run.status}, diverged" if diverged(run.events) else run.status
