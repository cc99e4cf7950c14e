"""What a run is asked for while it works: stop, pause, sample.

In the kernel the buttons set the run's flags. A run in processes of its own reads them from `control.json` in its
folder, where any kernel writes: {"stop": how often it was asked to stop, "pause": bool, "sample": how many samples}.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_gpt import store

if TYPE_CHECKING:
    from jupyter_gpt.runs.events import Event
    from jupyter_gpt.runs.worker import Call

FILE = "control.json"
PERIOD = 0.05  # seconds between two looks at the file
NOTHING = {"stop": 0, "pause": False, "sample": 0}


def asked(folder: Path) -> dict:
    """What the run in `folder` is asked for."""
    try:
        return NOTHING | store.read_json(folder / FILE, stop=int, pause=bool, sample=int)
    except ValueError:  # nobody but us writes it
        return dict(NOTHING)


def ask(folder: Path, **changes: int | bool) -> None:
    """Raises GPTError where the folder cannot be written."""
    with store.writing("what the run is asked for"):
        store.write_json(folder / FILE, asked(folder) | changes)


class Control:
    """What the runner looks at between two pieces of a run. Of one in the kernel: nothing but the run's own flags.

    leads: whether this process writes events and checkpoints, and keeps the model; one rank of several does.
    """

    leads = True

    def look(self, run: Any, event: Event | Call | None) -> None:
        """Set the flags of `run`; `event` is the piece that the loop has yielded, a Step where a step is complete."""

    def agreed(self, value: bool) -> bool:
        """What all ranks do next, where it depends on the clock of one. Asked once after each step, by all ranks."""
        return value


class FolderControl(Control):
    """Reads the folder."""

    def __init__(self, folder: Path):
        self.path, self.stamp, self.samples, self.next = folder / FILE, None, 0, 0.0

    def look(self, run: Any, event: Event | Call | None) -> None:
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + PERIOD
        stamp = store.stamp_of(self.path)
        if stamp == self.stamp:
            return
        self.stamp, wanted = stamp, asked(self.path.parent)
        if wanted["stop"] > 0:
            run.stopping.set()
        if wanted["stop"] > 1:
            run.skipping.set()
        if wanted["sample"] != self.samples:
            self.samples = wanted["sample"]
            run.sampling.set()
        (run.paused.set if wanted["pause"] and not wanted["stop"] else run.paused.clear)()
