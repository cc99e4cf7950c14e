"""How far a run is, read from its folder within milliseconds, while another process writes there too.

Of a long `events.jsonl` only its beginning, its end and places in between are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, reading
from jupyter_gpt.runs.events import declared, event_of, last_of, metrics_from, recent

POINTS = 60  # of a run's curve
WHOLE = 64 << 10  # bytes up to which a file of events is read as a whole
PLACE = 512  # bytes that are read at each place of a longer one
END = 8 << 10  # and at its beginning and its end
PACE = 50  # steps by which the time left is told


def read_recipe(path: Path) -> dict:
    """What a run is."""
    try:
        with reading(f"run {path.parent.name}", "its recipe.yaml cannot be read, --overwrite makes the run anew"):
            header = store.read_yaml(path)
            recipe = header["recipe"]
            store.check_types({**header, **recipe}, kind=str, steps=int)
            return {"kind": algorithm(header["kind"], recipe), "steps": recipe["steps"]}
    except GPTError as error:
        return {"kind": "", "steps": 0, "error": str(error)}


def algorithm(kind: str, recipe: Mapping) -> str:
    """What a run trains by: ppo, grpo, dpo, kto, or the kind of another stage. KTO is a loss of --algo dpo."""
    if kind != "rlhf":
        return kind
    return "kto" if recipe.get("loss") == "kto" else recipe.get("algo", kind)


def read_events(path: Path, early: list[dict]) -> dict:
    """How far a run is: of a long file only its end is read here, and `early_events` before.

    status and diverged: as its last event says, None where it has not ended.  stage: what it prepares before its first
    step.  step, value: the last step, and the mean of its first metric over the last ones.  curve: at most POINTS
    values of that, evenly spaced.  pace: seconds per step.  seconds: of training.  failure: why it failed.
    """
    try:
        tail, problem = late_events(path), None
    except FileNotFoundError:  # it has told nothing yet
        tail, problem = [], None
    except OSError as error:
        tail, problem = [], f"its events.jsonl cannot be read: {error.strerror}"
    metrics = declared(tail) or declared(early)
    metric = metrics[0] if metrics else metrics_from([{"name": "loss", "label": "loss"}])[0]
    steps = [event for event in tail if event["event"] == "step"][-PACE:]
    points = {event["step"]: event.get(metric.name) for event in (*early, *tail) if event["event"] == "step"}
    last, end = tail[-1] if tail else {}, last_of(tail[-1:], "end")
    return {
        "status": end.get("status"),
        "diverged": "diverged" in end.get("alarms", ()) if end else None,
        "stage": last["stage"] if last.get("event") == "progress" else None,
        "step": steps[-1]["step"] if steps else end.get("step", 0),
        "metric": metric.title,
        "format": metric.format,
        "value": recent(tail, metric.name),
        "curve": thinned({step: value for step, value in points.items() if value is not None and math.isfinite(value)}),
        "pace": pace_of(steps),
        "seconds": (end or (steps[-1] if steps else {})).get("seconds"),
        "failure": end.get("error"),
        **({"error": problem} if problem else {}),
    }


def early_events(path: Path, size: int) -> list[dict]:
    """Events at the beginning of a long file, and at places in its middle."""
    if size <= WHOLE:
        return []
    try:
        with path.open("rb") as file:
            places = [(0, END), *((END + (size - 2 * END) * i // POINTS, PLACE) for i in range(POINTS))]
            return [event for start, length in places for event in events_between(file, start, length)]
    except OSError:  # `late_events` says so
        return []


def late_events(path: Path) -> list[dict]:
    """All events of a short file; those at the end of a long one, with a step if its last megabyte has one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = size if size <= WHOLE else END
        found = events_between(file, size - length, length)
        while not any(event["event"] == "step" for event in found) and length < min(size, 1 << 20):
            length = min(size, 2 * length)
            found = events_between(file, size - length, length)
        return found


def events_between(file: BinaryIO, start: int, length: int) -> list[dict]:
    """The events whose lines are in a part of a file; damaged ones are passed over."""
    file.seek(start)
    lines = file.read(length).split(b"\n")
    whole = lines[1 if start else 0 : -1]
    return [event for line in whole if line and (event := event_of(line, {"val_loss"})) is not None]


def thinned(points: dict[int, float]) -> list[float]:
    """Values by their steps as at most POINTS means of four digits, each of an equal share of the steps."""
    first, span = min(points, default=0), max(points, default=0) - min(points, default=0) + 1
    groups: dict[int, list[float]] = {}
    for step, value in sorted(points.items()):
        groups.setdefault((step - first) * POINTS // span, []).append(value)
    return [float(f"{sum(group) / len(group):.4g}") for group in groups.values()]


def pace_of(steps: list[dict]) -> float | None:
    """Seconds per step, of the last steps."""
    times = [(event["step"], event["seconds"]) for event in steps if event.get("seconds") is not None]
    if len(times) > 1 and times[-1][0] > times[0][0]:
        return max(0.0, (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0]))
    return times[0][1] / times[0][0] if times and times[0][0] else None
