"""What a run is asked for while it works: stop, pause, sample.

In the kernel the buttons set the run's flags. A run in processes of its own reads them from `control.json` in its
folder, where any kernel writes: {"stop": how often it was asked to stop, "pause": bool, "sample": how many samples}.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from jupyter_gpt import store
from jupyter_gpt.runs.events import Ready, Step

if TYPE_CHECKING:
    from jupyter_gpt.runs.events import Event
    from jupyter_gpt.runs.worker import Call

FILE = "control.json"
FLAGS = ("stopping", "skipping", "paused", "sampling")  # of a run
PERIOD = 0.05  # seconds between two looks at the file
NOTHING = {"stop": 0, "pause": False, "sample": 0}


def asked(folder: Path) -> dict:
    """What the run in `folder` is asked for."""
    try:
        return NOTHING | store.read_json(folder / FILE, stop=int, pause=bool, sample=int)
    except ValueError:  # nobody but us writes it
        return dict(NOTHING)


def status(folder: Path) -> str:
    """The status of a run that works: what it was asked for."""
    found = asked(folder)
    return "stopping" if found["stop"] else "paused" if found["pause"] else "running"


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


class RanksControl(Control):
    """Of several ranks, which do what the first is asked for at the next step: all at the same.

    What only the first does meanwhile, preparing and the last evaluation, it may end by itself. While it evaluates
    between two steps, the others wait to be told: there it may stop them at once.
    """

    def __init__(self, folder: Path, ranks: Any):
        self.ranks, self.leads = ranks, ranks.rank == 0
        self.folder = FolderControl(folder) if self.leads else None
        self.asked = SimpleNamespace(**{name: threading.Event() for name in FLAGS})
        self.step, self.between = 0, True

    def look(self, run: Any, event: Event | Call | None) -> None:
        if self.folder is not None:
            self.folder.look(self.asked, event)
        if isinstance(event, Ready):
            self.between = False
            self.tell_all(run)
        elif isinstance(event, Step):
            self.step, self.between = event.step, True
        elif self.leads and (not self.ranks.joined or self.alone(run)):
            tell(run, {name: getattr(self.asked, name).is_set() for name in ("stopping", "skipping")})
        elif self.leads and self.between and not self.ranks.shard and self.asked.stopping.is_set():
            self.tell_all(run)

    def tell_all(self, run: Any) -> None:
        """Set the flags of the run on all ranks, which come here together."""
        words = self.ranks.told([getattr(self.asked, name).is_set() for name in FLAGS])
        self.asked.sampling.clear()
        tell(run, dict(zip(FLAGS, words, strict=True)))

    def alone(self, run: Any) -> bool:
        """Whether the others have nothing more to do with what the first does."""
        return not self.ranks.shard and (run.stopping.is_set() or 0 < run.steps <= self.step)

    def agreed(self, value: bool) -> bool:
        return bool(self.ranks.told([value])[0]) if self.ranks.shard else value


def tell(run: Any, flags: dict[str, bool]) -> None:
    """Set the flags of a run that are set here; one that is paused goes on where it is not."""
    for name, on in flags.items():
        if on:
            getattr(run, name).set()
        elif name == "paused":
            run.paused.clear()


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
