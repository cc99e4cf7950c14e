"""The live widget: a run's curves, samples and buttons while it trains.

`run.events` is an append-only list; `pump()` reads on from where it last was and sends one small message a run. The
protocol, all of it:

kernel → front end   {"type": "update", "run": i, "from": a, "to": b, "columns": [], "rows": n, "events": [], "now": {}}
                     with one little-endian float32 buffer of n rows per name in "columns": "step" and the metrics
                     that are charted. It covers run.events[a:b]; a front end whose cursor is not a, asks again.
                     from 0: forget what you have. "now" holds the newest step's numbers, or is null before the first.
front end → kernel   {"type": "ready" | "heard" | "pause" | "unpause" | "stop" | "skip" | "sample"}. "ready" asks
                     for all since the first event (first render, page reload, a gap), "heard" acknowledges it. "skip"
                     leaves the evaluation of a run out that stops; a second "stop" does not: it was clicked before the
                     first was seen to be heard. Each carries "page", a name that the front end gives itself when it is
                     loaded.
synced state         {"runs": [{"name", "kind", "status", "steps", "metrics": [...]}, ...]}; the first run is the one
                     that the buttons act on. "metrics" are those that it declares (runs/events.py), once it has begun.
"""

from __future__ import annotations

import math
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jupyter_gpt.notebook.views.widget import Widget
from jupyter_gpt.runs.events import Metric, declared

PERIOD = 0.2  # seconds between two messages; a front end draws no more often than that
_NOW = ("step", "tokens", "seconds", "tokens_per_second", "mfu")


class LiveRun(Widget):
    """Shows `run` live, with `overlays` (other runs, finished or not) drawn into the same charts.

    Call `pump()` about ten times a second while the run works, from any one thread. Clicks reach `run.pause()`,
    `unpause()`, `stop()` and `sample_now()` on whichever thread the kernel hears them. Raises GPTError when the package
    was installed without its built front end.
    """

    def __init__(self, run: Any, overlays: list | tuple = ()) -> None:
        self._feeds = [_Feed(each) for each in (run, *overlays)]
        self._send_at, self.run = 0.0, run
        super().__init__("run", self._describe())

    def __repr__(self) -> str:
        return f"LiveRun({self.run.name!r})"

    def pump(self, at_once: bool = False) -> None:
        """Sends what is new: a change of status always, events every 0.2 s unless they shall go `at_once`."""
        with self._lock:
            for feed in self._feeds:
                feed.absorb()
            state = self._describe()
            if state != self.state:
                self.state = state
            elif not at_once and time.monotonic() < self._send_at:
                return
            self._send_at = time.monotonic() + PERIOD
            if self.unheard():
                self._rewind()
            for index, feed in enumerate(self._feeds):
                update = feed.update()
                if update is not None:
                    content, buffers = update
                    self.send({"type": "update", "run": index, **content}, buffers=buffers)

    def _describe(self) -> dict:
        return {"runs": [feed.describe() for feed in self._feeds]}

    def hear(self, content: dict) -> None:
        what = content.get("type")
        if what == "ready":
            self._rewind()
        elif what == "pause":
            self.run.pause()
        elif what == "unpause":
            self.run.unpause()
        elif what == "skip" or (what == "stop" and self.run.status != "stopping"):
            self.run.stop()
        elif what == "sample":
            self.run.sample_now()
        self.pump(at_once=True)

    def _rewind(self) -> None:
        for feed in self._feeds:
            feed.rewind()


class _Feed:
    """One run's events, turned into columns once and sent in pieces, or whole again after `rewind()`."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self._forget()
        self.absorb()

    def _forget(self, metrics: Sequence[Metric] = ()) -> None:
        self._metrics = [asdict(metric) for metric in metrics]
        self._columns = {name: array("f") for name in ("step", *(m.name for m in metrics if m.chart != ""))}
        self._rest: list[dict] = []  # everything but steps, as the front end takes it
        self._now: dict | None = None  # the newest step's numbers in full precision
        self._read, self._last = 0, None  # how many of run.events are in the above, and the last of them
        self.rewind()

    def rewind(self) -> None:
        self._sent = (0, 0, 0)  # events, rows, rest that the front end has

    def describe(self) -> dict:
        """The run in the synced state."""
        run = self.run
        known = {"name": run.name, "kind": run.kind, "status": run.status, "steps": run.steps}
        return {**known, "metrics": self._metrics}

    def update(self) -> tuple[dict, list[bytes]] | None:
        """The message for what was absorbed and is not yet sent, or None."""
        events, rows, rest = self._sent
        if events == self._read:
            return None
        self._sent = (self._read, len(self._columns["step"]), len(self._rest))
        content = {
            "from": events,
            "to": self._read,
            "columns": list(self._columns),
            "rows": self._sent[1] - rows,
            "events": self._rest[rest:],
            "now": self._now,
        }
        return content, [_bytes(column[rows:]) for column in self._columns.values()]

    def absorb(self) -> None:
        """Take what the run has told since."""
        events = self.run.events
        end = len(events)
        if end < self._read or (self._read and events[self._read - 1] is not self._last):  # cut back to a checkpoint
            self._forget()
        if not self._metrics or any(event["event"] == "start" for event in events[self._read : end]):
            metrics = declared(self.run.events)
            if [asdict(metric) for metric in metrics] != self._metrics:
                self._forget(metrics)
        newest = None
        for event in events[self._read : end]:
            if event["event"] == "step":
                newest = event
                for name, column in self._columns.items():
                    value = event.get(name)
                    column.append(math.nan if value is None else value)
            elif event["event"] != "checkpoint":
                self._rest.append({key: _json(value) for key, value in event.items()})
        if newest is not None:
            self._now = {name: _json(newest.get(name)) for name in _NOW}
        self._read, self._last = end, events[end - 1] if end else None


def _json(value: Any) -> Any:
    """JSON has no NaN and no infinity; the front end reads null as "unknown"."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bytes(column: array) -> bytes:
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()
