"""What a run tells while it works: typed events, and the metrics that it declares.

A training loop yields these records. Each is one JSON object, a line of `events.jsonl`: its name under `event`, and the
`values` of a step or an evaluation beside its other fields. `Start` carries the metrics of the run; whatever draws a
run (the live view, the report, `Run.history`) draws what is declared there and knows no metric by name.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError

Values = Mapping[str, Any]  # numbers by the names of metrics: floats, None, or device scalars that nobody has read yet


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that steps or evaluations tell, and how it is shown: steps as a curve, evaluations as points.

    name: its key in `values`.  label, unit: in words.  chart: the metric whose chart shows the points of this one (the
    validation loss in that of the training loss); by default it has a chart of its own, with "" none.  The chart of the
    first metric is the large one.  format: in Python's format language, ".3f", ".1%", ",.0f" or ".3g".  summary:
    whether it is among the numbers of the run.  smooth: whether a moving average is drawn over the steps.  interval:
    keys of the bounds of its 95% interval.  limit: a value to stay below, drawn in red.
    """

    name: str
    label: str
    unit: str = ""
    chart: str | None = None
    format: str = ".3f"
    summary: bool = False
    smooth: bool = True
    interval: tuple[str, str] | None = None
    limit: float | None = None

    @property
    def title(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit else self.label


@dataclass(kw_only=True, slots=True)
class Start:
    """The first step is about to be taken; `step` is the last that was, 0 unless the run is resumed.

    about: what is trained on what, in one line.  metrics: what the run will tell, in the order in which it is shown.
    figures: further figures of its report, by name.  facts: values for programs.
    """

    event: ClassVar[str] = "start"
    parameters: int
    trained: int | None = None
    device: str
    dtype: str
    steps: int
    step: int
    about: str
    metrics: Sequence[Metric]
    figures: Mapping[str, str] = field(default_factory=dict)
    tokens_per_step: int | None = None
    flops_per_token: float | None = None
    peak_flops: float | None = None
    facts: Values = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Step:
    """A step was taken. `tokens` and `seconds` count from the beginning of the run; `seconds` of training alone."""

    event: ClassVar[str] = "step"
    step: int
    values: Values
    tokens: int
    seconds: float
    tokens_per_second: float
    mfu: float | None = None


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """An evaluation on held-out data or held-out prompts, and its seconds. facts: results other than metrics."""

    event: ClassVar[str] = "evaluation"
    step: int
    values: Values
    seconds: float
    facts: Values = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Sample:
    """A sample of the model; in reinforcement learning with its reward, its tokens and their advantages."""

    event: ClassVar[str] = "sample"
    step: int
    prompt: str
    text: str
    reward: float | None = None
    pieces: Sequence[str] | None = None
    advantages: Sequence[float] | None = None
    asked: bool | None = None  # requested with the Sample button


@dataclass(kw_only=True, slots=True)
class Table:
    """A table for the report, which shows the last one of each title.

    columns: their labels, that of the rows first.  rows: the label of each row, then a number, None, or a number with
    the bounds of its interval, `[value, low, high]`.  format: as of a metric.  chart: how it is drawn, as "bars" of
    each column, as a "matrix" of shares of the rows, or as a "curve", the second number over the first.
    """

    event: ClassVar[str] = "table"
    step: int
    title: str
    note: str = ""
    columns: Sequence[str]
    rows: Sequence[Sequence]
    format: str = ".2f"
    chart: str = ""


@dataclass(kw_only=True, slots=True)
class Alarm:
    """Something goes wrong, and what to do about it; raised when it begins."""

    event: ClassVar[str] = "warning"
    step: int
    cause: str
    text: str


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """The checkpoint of a step is whole."""

    event: ClassVar[str] = "checkpoint"
    step: int


@dataclass(kw_only=True, slots=True)
class End:
    """The run has ended; `alarms` are the causes of those that were not over."""

    event: ClassVar[str] = "end"
    status: str
    step: int
    seconds: float
    error: str | None
    alarms: Sequence[str]


@dataclass(slots=True)
class Progress:
    """Work before the first step, by its name: how much of it is done."""

    event: ClassVar[str] = "progress"
    stage: str
    done: int = 0
    total: int | None = None
    unit: str = ""


@dataclass(kw_only=True, slots=True)
class Note:
    """A note for the reader of the report."""

    event: ClassVar[str] = "note"
    text: str


@dataclass(slots=True)
class Ready:
    """The ranks of a run begin the next step together; it is not written down."""

    event: ClassVar[str] = "ready"


Event = Start | Step | Evaluation | Sample | Table | Alarm | Checkpoint | End | Progress | Note | Ready
FLAT = ("values", "facts")  # whose keys stand beside the other fields in a line
OPTIONAL = ("trained", "reward", "pieces", "advantages", "asked")  # left out of a line where there is none


def line_of(event: Event, time: float) -> dict:
    """The JSON object of an event; device scalars are still in it."""
    line: dict = {"event": event.event, "time": time}
    for each in fields(event):
        value = getattr(event, each.name)
        if each.name in FLAT:
            line |= value
        elif each.name == "metrics":
            line["metrics"] = [{**asdict(m), "interval": m.interval and list(m.interval)} for m in value]
        elif value is not None or each.name not in OPTIONAL:
            line[each.name] = value
    return line


def declared(lines: Sequence[Mapping]) -> list[Metric]:
    """The metrics of the last `start` among the lines of a run."""
    found = next((line["metrics"] for line in reversed(lines) if line["event"] == "start" and "metrics" in line), ())
    return metrics_from(found)


def metrics_from(declarations: Iterable[Mapping]) -> list[Metric]:
    """Metrics as a line holds them. What a later version says about one is passed over."""
    known = {each.name for each in fields(Metric)}
    found = [Metric(**{key: value for key, value in one.items() if key in known}) for one in declarations]
    return [replace(metric, interval=metric.interval and tuple(metric.interval)) for metric in found]


WITH_STEP = ("step", "evaluation", "sample", "table", "checkpoint", "warning")
KINDS = {
    **dict.fromkeys(("step", "steps", "parameters"), int),
    **dict.fromkeys(("text", "status"), str),
    "error": str | None,
    **dict.fromkeys(("time", "seconds"), int | float | None),
}
OF_A_METRIC = {
    **dict.fromkeys(("name", "label", "unit", "format"), str),
    "chart": str | None,
    "limit": int | float | None,
}
LAST = 10  # steps whose mean is called the training loss


def event_of(line: bytes, numbers: Container[str] = ()) -> dict | None:
    """The event of a line; None where it is damaged. `numbers` are the metrics that the run has declared."""
    try:
        event = json.loads(line.decode())
        kind, measured = event["event"], event["event"] in ("step", "evaluation")
        own = [key for key in event if (kind == "step" and key != "event") or (measured and key in numbers)]
        store.check_types(event, **{**KINDS, **dict.fromkeys(own, int | float | None)})
        for metric in declared([event]):
            store.check_types(asdict(metric), **OF_A_METRIC)
            format(0.0, metric.format)
        return event if isinstance(kind, str) and (kind not in WITH_STEP or "step" in event) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def mean_label(steps: int) -> str:
    """What `recent` gives of so many steps."""
    return f"mean of last {LAST} steps" if steps >= LAST else f"mean of {steps} step{'s' * (steps != 1)}"


class Reader:
    """Reads a file of events that another process writes. `events` is what it has so far, one list for ever.

    damaged: the numbers of lines that cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        self.events: list[dict] = []
        self.begin()

    def begin(self) -> None:
        self.events.clear()
        self.damaged: list[int] = []
        self.file, self.place, self.lines, self.numbers = None, 0, 0, {"val_loss"}

    def read(self) -> None:
        """Read on; from the beginning where the file was cut back. Raises GPTError for one that cannot be opened."""
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                if self.file not in (None, found.st_ino) or found.st_size < self.place:
                    self.begin()
                self.file = found.st_ino
                file.seek(self.place)
                new = file.read() if found.st_size > self.place else b""
        except FileNotFoundError:
            self.begin()
            return
        except OSError as error:
            raise GPTError(
                f"run {self.path.parent.name} cannot be read: its {self.path.name}: {error.strerror}"
            ) from error
        *whole, torn = new.split(b"\n")
        for line in whole:
            self.lines += 1
            if line and not self.take(line):
                self.damaged.append(self.lines)
        self.place += len(new) - len(torn)
        if torn and self.take(torn):  # by an earlier version, or by hand
            self.place += len(torn)

    def take(self, line: bytes) -> bool:
        event = event_of(line, self.numbers)
        if event is not None:
            self.events.append(event)
            self.numbers |= {metric.name for metric in declared([event])}
        return event is not None


def scan_events(path: Path) -> list[tuple[bytes, dict | None]]:
    """Each line of a file with its event, None where it is damaged; a last line that a kill left torn is left out.

    Raises GPTError for a file that cannot be opened.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise GPTError(f"run {path.parent.name} cannot be read: its {path.name}: {error.strerror}") from error
    last = [lines.pop()]
    found, numbers = [], {"val_loss"}
    for line in (*lines, *last):
        if line:
            event = event_of(line, numbers)
            found.append((line, event))
            numbers |= {metric.name for metric in declared([event] if event else [])}
    return found[:-1] if last[0] and found[-1][1] is None else found


def read_events(path: Path) -> list[dict]:
    """The events of a file, those whose lines can be read."""
    return [event for _, event in scan_events(path) if event is not None]


def cut_events(path: Path, step: int, notes: Iterable[Note] = ()) -> list[dict]:
    """Cut the file back to what was known right after `step`, and return it.

    What a resumed run will do again (the evaluation and samples of that very step, and all later) goes, and with it
    what a stop added. An alarm that the step itself gave cause for stays, and so does a line that cannot be read.
    `notes` are added.
    """
    kept, evaluated = [], False
    for line, event in scan_events(path):
        if event is not None:
            if event["event"] == "end" or event.get("step", 0) > step:
                continue
            if event.get("step") == step:
                evaluated |= event["event"] == "evaluation"
                if event["event"] not in ("step", "start") and (event["event"] != "warning" or evaluated):
                    continue
        kept.append((line, event))
    added = [line_of(note, time.time()) for note in notes]
    kept += [(json.dumps(event).encode(), event) for event in added]
    store.write_bytes(path, b"".join(line + b"\n" for line, _ in kept))
    return [event for _, event in kept if event is not None]


def recent(events: Sequence[dict], name: str = "loss") -> float | None:
    """The mean of a metric over the last LAST steps, or all if there are fewer: a single step depends on its batch."""
    values = (event.get(name) for event in reversed(events) if event["event"] == "step")
    last = list(islice((value for value in values if value is not None), LAST))
    return sum(last) / len(last) if last else None


def last_of(events: Sequence[dict], kind: str) -> dict:
    """The last event of a kind; an empty one where there is none."""
    return next((event for event in reversed(events) if event["event"] == kind), {})
