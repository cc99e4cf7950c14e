"""Runs: one training job each, on disk as it happens and controllable while it lives.

`runs/NAME/` holds `recipe.yaml`, `events.jsonl` (an event a line), `data/` (its tokens) and `checkpoints/`. The status
is not stored but read off: the last event says how a run ended, and a run with no end whose process is gone was
interrupted. One in processes of its own has `launcher.json` too, `control.json` (what it is asked for) and `logs/`: any
process follows it by reading its events, and controls it by writing there.
"""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.report.parts import Paragraph, Table, Varies
from jupyter_gpt.report.report import Report, ShownAsTable
from jupyter_gpt.runs import control, failure
from jupyter_gpt.runs.events import LAST, Event, Reader, declared, last_of, recent
from jupyter_gpt.runs.launchers import launcher
from jupyter_gpt.runs.progress import algorithm
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.worker import Job

COLUMNS = ("step", "loss", "val_loss", "tokens", "seconds", "lr", "tokens_per_second")  # of every history
NOT_COLUMNS = ("event", "time", "mfu")  # of what a step tells
ACTIVE = ("running", "paused", "stopping")  # the status of a run that has not ended
LOSS = f"loss, mean of last {LAST}"
LOOK = 0.1  # seconds between two looks at a run of another process
TICK = 0.1  # seconds between two calls of `tick`
GRACE = 1.0  # seconds that a run has left after a second interrupt
LISTED = ("run", "kind", "status", "steps", LOSS, "validation loss", "tokens", "seconds")  # columns of `%gpt runs`


class Run:
    """A run of this kernel or of an earlier one. Control methods are thread-safe and return at once."""

    def __init__(self, folder: Path):
        self.folder, self.name = folder, folder.name
        self.read_recipe()
        self.reader = Reader(folder / "events.jsonl")
        self._events = self.reader.events
        self.looking, self.looked, self.followed = threading.Lock(), 0.0, True
        self.handle: dict | None = None
        self.look()
        if damaged := self.reader.damaged:
            warnings.warn(
                f"run {self.name}: {len(damaged)} lines of its events.jsonl cannot be read and are passed over, the "
                f"first of them line {damaged[0]}",
                stacklevel=2,
            )
        self.job: Job | None = None
        self.control = control.Control()
        self.stopping = threading.Event()
        self.skipping = threading.Event()
        self.paused = threading.Event()
        self.sampling = threading.Event()
        self.callbacks: tuple[Callable[[Event], object], ...] = ()  # of the user's own

    def read_recipe(self) -> None:
        """Read what it is. Raises GPTError where that is missing or damaged."""
        path = self.folder / "recipe.yaml"
        try:
            self.stamp = store.stamp_of(path)
            header = store.read_yaml(path)
            store.check_types({**header, **header["recipe"]}, kind=str, steps=int)
            self.kind, self.recipe, self.provenance = header["kind"], header["recipe"], Provenance.read(header)
            self.recipe["steps"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GPTError(
                f"run {self.name} cannot be read: its recipe.yaml is missing or damaged; --overwrite makes the run anew"
            ) from error

    @property
    def events(self) -> list[dict]:
        """What it has told, oldest first: one list, which grows."""
        if time.monotonic() - self.looked > LOOK:
            self.look()
        return self._events

    @events.setter
    def events(self, events: list[dict]) -> None:
        self._events = events

    def look(self) -> None:
        """Read what another process has told since, and who holds the run; nothing of a run of this process."""
        if self.followed:
            with self.looking:
                self.looked = time.monotonic()
                self.handle = launcher.read_handle(self.folder)
                self.living = launcher.is_alive(self.handle) if self.handle else False
                if self.handle and store.stamp_of(self.folder / "recipe.yaml") not in (None, self.stamp):
                    self.read_recipe()  # it was resolved, or an older run has its name again
                self.reader.read()

    @property
    def steps(self) -> int:
        """How many steps the whole run has; 0 until a run by minutes has measured itself."""
        return self.recipe["steps"]

    @property
    def step(self) -> int:
        """The last step taken."""
        return next((e["step"] for e in reversed(self.events) if e["event"] == "step"), 0)

    def follow(self) -> None:
        """From here on other processes write its events."""
        self.job, self.followed = None, True
        with self.looking:
            self.reader.begin()
            self._events = self.reader.events
        self.look()

    @property
    def here(self) -> bool:
        """Whether it is running in this process."""
        return self.job is not None and not self.job.done.is_set()

    @property
    def held(self) -> bool:
        """Whether it is running in processes of its own. A cluster's job that was preempted begins again, unless the
        user has stopped it."""
        if self.here or self.handle is None or not self.living:
            return False
        end = last_of(self.events[-1:], "end")
        again = self.handle["launcher"] == "slurm" and not control.asked(self.folder)["stop"]
        return not end or (again and end["status"] == "stopped")

    @property
    def alive(self) -> bool:
        """Whether it is running, and can be controlled from here."""
        return self.here or self.held

    @property
    def status(self) -> str:
        if self.here:
            return "stopping" if self.stopping.is_set() else "paused" if self.paused.is_set() else "running"
        events = self.events
        if self.held:
            return control.status(self.folder)
        if events and events[-1]["event"] == "end":
            return events[-1]["status"]
        if self.handle and failure.read(self.folder):
            return "failed"
        return "running" if store.lock_holder(self.folder) not in (None, os.getpid()) else "interrupted"

    def stop(self) -> None:
        """End it gracefully: the model as of the last step is evaluated, sampled from and kept, and `gpt.resume` goes
        on.

        A second call leaves evaluation and samples out.
        """
        self.ours().halt()

    def halt(self) -> None:
        """As `stop`, of a run that may have ended since. Asked a third time, processes that do not end are killed."""
        if self.held:
            times = control.asked(self.folder)["stop"] + 1
            control.ask(self.folder, stop=times, pause=False)
            if times > 2 and self.handle:
                launcher.launcher(self.handle["launcher"]).stop(self.handle)
        else:
            self.paused.clear()
            (self.skipping if self.stopping.is_set() else self.stopping).set()

    def pause(self) -> None:
        if self.ours().held:
            control.ask(self.folder, pause=True)
        else:
            self.paused.set()

    def unpause(self) -> None:
        if self.ours().held:
            control.ask(self.folder, pause=False)
        else:
            self.paused.clear()

    def sample_now(self) -> None:
        """Draw a sample of each fixed prompt before the next step; changes nothing of the training."""
        if self.ours().held:
            control.ask(self.folder, sample=control.asked(self.folder)["sample"] + 1)
        else:
            self.sampling.set()

    def ours(self) -> Run:
        """This run, if it can be controlled from here."""
        if not self.alive:
            holder = store.lock_holder(self.folder)
            if holder and self.job is None:
                raise GPTError(f"run {self.name} is trained by another process (pid {holder}): control it there")
            stands = "has failed" if self.status == "failed" else f"is {self.status}"
            raise GPTError(f"run {self.name} is not running: it {stands}")
        return self

    def wait(self, tick=None) -> Run:
        """Block until the run ends, calling `tick` about ten times a second. Ctrl-C stops the run, see `stop`.

        A second Ctrl-C leaves the last evaluation out, and is raised where the run has still not ended a second later.
        Of a detached run that nobody has stopped, Ctrl-C ends the waiting. Raises the error of a run that failed.
        """
        if self.job is not None:
            self.job.wait(tick, self.halt, grace=1.0)
        elif self.handle:
            self.wait_for_processes(self.handle, tick)
        return self

    def wait_for_processes(self, handle: dict, tick) -> None:
        interrupts, until = 0, math.inf
        while self.held:
            try:
                if time.monotonic() > until:
                    raise KeyboardInterrupt
                time.sleep(TICK)
                if tick:
                    tick()
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 2 or (handle["detached"] and self.status != "stopping"):
                    raise
                if interrupts == 2:
                    until = time.monotonic() + GRACE
                self.halt()
        while self.handle is None and launcher.is_alive(handle):  # it has failed, and an older run has its name again
            time.sleep(TICK)
        self.look()
        if failure.read(self.folder) or self.status in ("failed", "interrupted"):
            raise failure.error_of(self.name, self.events, handle, self.folder)

    def write_recipe(self, recipe) -> None:
        """Keep the recipe as it was resolved."""
        self.recipe = recipe.as_dict()
        store.write_text(self.folder / "recipe.yaml", header(self.provenance, self.recipe))

    @property
    def history(self):
        """A DataFrame with one row a step: COLUMNS, and whatever else the steps of this run tell.

        What only evaluations tell of its declared metrics, `val_loss` at first, stands where one was made.
        """
        import pandas

        rows = {e["step"]: e for e in self.events if e["event"] == "step"}
        keys = dict.fromkeys(key for row in rows.values() for key in row)
        more = [key for key in keys if key not in (*COLUMNS, *NOT_COLUMNS)] or ["grad_norm"]
        table = pandas.DataFrame(list(rows.values()), columns=[*COLUMNS, *more])
        evaluations = {e["step"]: e for e in self.events if e["event"] == "evaluation"}
        names = [metric.name for metric in declared(self.events)]
        only = [name for name in names if name not in table and any(name in e for e in evaluations.values())]
        for key in ("val_loss", *only):
            values = [evaluations.get(step, {}).get(key) for step in table["step"]]
            table[key] = pandas.Series(values, index=table.index, dtype="float64")
        return table

    def __repr__(self) -> str:
        kind = algorithm(self.kind, self.recipe)
        return f"<run {self.name}: {kind}, {standing(self)}, step {self.step} of {self.steps}>"


def header(provenance: Provenance, recipe: dict) -> str:
    """The text of `recipe.yaml`: what was made, by which cell, with which options, and the recipe."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the other loses a U+0085 in some texts
    return yaml.dump({**asdict(provenance), "recipe": recipe}, Dumper=dumper, sort_keys=False, allow_unicode=True)


def diverged(events: Sequence[dict]) -> bool:
    """Whether the loss left its range and was not back when the run ended, or was last heard of."""
    end = last_of(events[-1:], "end")
    causes = end.get("alarms", ()) if end else [e["cause"] for e in events if e["event"] == "warning"]
    return "diverged" in causes


def standing(run) -> str:
    """The status of a run as text: `finished`, or `finished, diverged` as a warning about its model."""
    return f"{run.status}, diverged" if diverged(run.events) else run.status


def parked(folder: Path) -> list[Path]:
    """Older runs of that name that none has replaced yet, oldest first: several, where one after another was killed."""
    found = [
        path
        for path in folder.parent.glob(f".old-{folder.name}*")
        if path.name.partition("@")[0] == f".old-{folder.name}"
    ]
    return sorted(found, key=lambda path: int(path.name.partition("@")[2] or -1))


def bring_back(folder: Path) -> Path:
    """`folder`, with the older run restored if a kill came after it was parked and before the new one was written."""
    if not (folder / "recipe.yaml").exists() and (older := parked(folder)) and store.lock_holder(folder) is None:
        with suppress(OSError):  # a read-only store, or another kernel was faster
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(older[-1], folder)
    return folder


class Runs(ShownAsTable, Mapping):
    """Every run under the store, newest last; those of this kernel are the living objects."""

    def __init__(self):
        self.known: dict[Path, Run] = {}

    @property
    def report(self) -> Report:
        return runs_report(self)

    def folder(self, name: str) -> Path:
        return store.home() / "runs" / name

    def names(self) -> list[str]:
        """Names on disk, oldest first, without reading any run."""
        root = store.home() / "runs"
        for name in {path.name.partition("@")[0].removeprefix(".old-") for path in root.glob(".old-*")}:
            bring_back(root / name)
        found = [(store.stamp_of(path), path.parent.name) for path in root.glob("*/recipe.yaml")]
        return [
            name for stamp, name in sorted(each for each in found if each[0]) if name[0] != "."
        ]  # None: just deleted

    def __getitem__(self, name: str) -> Run:
        folder = self.folder(store.check_name(name))
        run = self.known.get(folder)
        if run is not None and run.job is not None and not run.here and (folder / launcher.HANDLE).exists():
            run = None  # it has gone on in processes of its own
        if run is not None and (run.here or folder.exists()):
            run.look()
            return run
        if not (bring_back(folder) / "recipe.yaml").exists():
            raise GPTError(f"there is no run {name}{nearest(name, self.names())}")
        run = self.known[folder] = Run(folder)
        return run

    def __contains__(self, name: object) -> bool:
        return (
            isinstance(name, str)
            and bool(store.NAME.fullmatch(name))
            and (bring_back(self.folder(name)) / "recipe.yaml").exists()
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


def runs_report(runs: Mapping[str, Any], names: Iterable[str] | None = None) -> Report:
    """A row for each run (or each of `names`): name, kind, status, steps, losses in nats, the step of the last
    validation, tokens, seconds.

    A run that cannot be read is listed as damaged: the others are still there.
    """
    rows, listed, reached = [], [], {}
    for name in runs if names is None else names:
        try:
            run = runs[name]
        except GPTError:
            rows.append((name, "", "damaged", *[""] * 5))
            listed.append({"name": name})
            continue
        facts = _facts(run.events)
        step = facts["step"] if run.status == "finished" else Varies(facts["step"])
        validated = [] if facts["val_loss"] is None else [" at step ", Varies(facts["val_step"])]
        losses = Varies(facts["loss"]), [Varies(facts["val_loss"]), *validated]
        spent = Varies(facts["tokens"]), Varies(facts["seconds"], 0)
        rows.append((name, algorithm(run.kind, run.recipe), standing(run), [step, " of ", run.steps], *losses, *spent))
        listed.append({"name": name, "kind": run.kind})
        reached[name] = {"status": run.status, "steps": run.steps, **facts}
    none = Paragraph("No runs yet. Train one with %%pretrain NAME.")
    table = Table(LISTED, rows, "lllrrrrr", wrap=True) if rows else none
    return Report("", [table], {"view": "runs", "runs": listed}, reached)


def _facts(events: Sequence[dict]) -> dict:
    """The newest step, losses, tokens and seconds among a run's events, None where there is none yet."""
    step, evaluation = last_of(events, "step"), last_of(events, "evaluation")
    return {
        "step": step.get("step", 0),
        "loss": recent(events),
        "val_loss": evaluation.get("val_loss"),
        "val_step": evaluation.get("step"),
        "tokens": step.get("tokens"),
        "seconds": step.get("seconds"),
    }
