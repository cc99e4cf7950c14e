"""The runner: iterates a training loop on the worker thread and writes down what it yields.

Stop, pause, sample and checkpoint are nothing but what happens here between two `next()` calls. Losses stay on the
device until somebody looks, ten times a second; a loss that is not finite ends the run with its last good checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator

from jupyter_gpt.calls import Call
from jupyter_gpt.errors import GPTError
from jupyter_gpt.session import store
from jupyter_gpt.session.runs import Run

LOOK = 0.1  # seconds between two readings of the device
CHECKPOINT = 60.0  # seconds between two checkpoints when the recipe does not count them in steps
NAP = 0.02  # seconds a paused run sleeps between two looks at its buttons


class Log:
    """Events on their way to `run.events` and to disk, in order, with device scalars read in one go."""

    def __init__(self, run: Run):
        self.run, self.pending, self.looked = run, [], 0.0
        self.file = (run.folder / "events.jsonl").open("a", encoding="utf-8")

    def add(self, event: dict) -> None:
        """Take an event; steps wait up to LOOK seconds, all others are written at once."""
        self.pending.append({"event": event["event"], "time": time.time(), **event})
        if event["event"] != "step" or time.monotonic() - self.looked > LOOK:
            self.flush()

    def flush(self) -> None:
        """Read the waiting losses from the device, write all out. Raises GPTError at a loss that is not finite."""
        self.looked = time.monotonic()
        waiting, self.pending = self.pending, []
        steps = [e for e in waiting if e["event"] == "step"]
        if steps:
            read_tensors(steps)
        bad = next((e for e in steps if not math.isfinite(e["loss"])), None)
        good = waiting if bad is None else waiting[: waiting.index(bad)]
        self.file.write("".join(json.dumps(event) + "\n" for event in good))
        self.file.flush()
        self.run.events.extend(good)
        if bad is not None:
            raise GPTError(diverged(self.run, bad["step"]))

    def close(self) -> None:
        self.file.close()


def read_tensors(events: list[dict]) -> None:
    """Put numbers in the place of all device scalars, with one wait for the device."""
    import torch

    places = [(event, key) for event in events for key, value in event.items() if isinstance(value, torch.Tensor)]
    if places:
        read = torch.stack([event[key].detach().float() for event, key in places]).tolist()
        for (event, key), value in zip(places, read, strict=True):
            event[key] = value


def diverged(run: Run, step: int) -> str:
    from jupyter_gpt.training.checkpoint import latest

    kept = latest(run.folder / "checkpoints")
    rest = f"the checkpoint of step {int(kept.name[5:])} is kept" if kept else "no checkpoint was made before it"
    return f"the loss of {run.name} stopped being a number at step {step}; {rest}. Lower --lr (now {run.recipe['lr']:g})"


def drive(run: Run, preparation: Iterator, resuming: bool, finished: Callable) -> Iterator[None]:
    """Prepare and run a training to its end, yielding to the worker between any two pieces of it.

    A training has `loop()`, a generator of events, `samples()`, one of what the Sample button asks for, `save(folder)` and
    `load(folder)`, and `recipe`, `step` and `seconds`.

    `finished(training)` keeps the model. Whatever ends the run, its events say how; an error is raised again.
    """
    log, training, status, error = Log(run), None, "stopped", None
    try:
        training = yield from prepared(run, preparation, log)
        if training is None and not resuming:
            raise GPTError(f"{run.name} was stopped before its first step: there is nothing to keep")
        if training is not None:
            if resuming:
                training.load(latest_checkpoint(run))
            else:
                training.save(run.folder / "checkpoints")
            status = yield from steps(run, training, training.loop(), log)
            finished(training, status)
    except BaseException as failure:
        status, error = "failed", str(failure) or type(failure).__name__
        raise
    finally:
        reached = training.step if training else run.step
        seconds = training.seconds if training else 0.0
        try:
            log.add({"event": "end", "status": status, "step": reached, "seconds": seconds, "error": error})
        finally:
            log.close()
            store.unlock(run.folder)


def latest_checkpoint(run: Run):
    from jupyter_gpt.training.checkpoint import latest

    found = latest(run.folder / "checkpoints")
    if found is None:
        raise GPTError(f"{run.name} has no checkpoint to resume from: run its cell again")
    return found


def prepared(run: Run, preparation: Iterator, log: Log) -> Iterator[None]:
    """Run the preparation; returns its Training, or None when it was stopped."""
    from jupyter_gpt.session.recipes import write_recipe

    while True:
        try:
            event = next(preparation)
        except StopIteration as end:
            write_recipe(run, end.value.recipe)
            return end.value
        if event is not None:
            log.add(event)
        yield
        if run.stopping.is_set():
            return None


def steps(run: Run, training, events: Iterator, log: Log) -> Iterator[None]:
    """Drive the loop; returns `finished` or `stopped`. Checkpoints are made right after a step, where state is whole.

    A call of the loop goes up to the worker. One that is interrupted stops the run, as it stands after its last step; one
    that raises ends it, with a checkpoint of that step.
    """
    saved, answer = time.monotonic(), None
    every = training.recipe.checkpoint_every
    while True:
        try:
            event = events.send(answer)
        except StopIteration:
            break
        answer = None
        if isinstance(event, Call):
            try:
                answer = yield event
            except KeyboardInterrupt:
                run.stopping.set()
                if training.step == training.recipe.steps:
                    break
            except Exception:
                checkpoint(run, training, log)
                raise
        elif event is not None:
            log.add(event)
            if event["event"] == "step":
                due = training.step % every == 0 if every else time.monotonic() - saved > CHECKPOINT
                if due and training.step < training.recipe.steps:
                    checkpoint(run, training, log)
                    saved = time.monotonic()
        if answer is None:
            yield
        while run.paused.is_set() and not run.stopping.is_set():
            log.flush()
            time.sleep(NAP)
            yield
        if run.sampling.is_set():
            run.sampling.clear()
            yield from asked(training.samples(), log)
        if run.stopping.is_set() and training.step < training.recipe.steps:
            checkpoint(run, training, log)
            return "stopped"
    log.flush()
    return "finished"


def asked(samples: Iterator, log: Log) -> Iterator:
    """The samples that somebody asked for between two steps; their calls go up too."""
    answer = None
    while True:
        try:
            event = samples.send(answer)
        except StopIteration:
            return
        answer = None
        if isinstance(event, Call):
            try:
                answer = yield event
            except KeyboardInterrupt:
                return
        else:
            if event is not None:
                log.add({**event, "asked": True})
            yield


def checkpoint(run: Run, training, log: Log) -> None:
    """Save, once all losses so far are known to be finite."""
    log.flush()
    training.save(run.folder / "checkpoints")
    log.add({"event": "checkpoint", "step": training.step})
