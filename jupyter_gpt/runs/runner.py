"""The runner: iterates a training loop on the worker thread and writes down what it yields.

Stop, pause, sample and checkpoint are nothing but what happens here between two `next()` calls. A run that is stopped
is saved, then evaluated and sampled from where it stands; that changes nothing of what is saved, and a resumed run
forgets it. Losses stay on the device until somebody looks, ten times a second; there the alarms look at them too. A
loss or a gradient that is not finite ends the run with its last good checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, is_lost_rank, is_out_of_memory
from jupyter_gpt.nn.schedule import end_of_stable
from jupyter_gpt.runs.alarms import LossAlarms
from jupyter_gpt.runs.events import Alarm, Checkpoint, End, Evaluation, Event, Ready, Sample, Step, line_of
from jupyter_gpt.runs.retention import BEST, Retention
from jupyter_gpt.runs.run import Run
from jupyter_gpt.runs.trackers import Trackers
from jupyter_gpt.runs.worker import Call

LOOK = 0.1  # seconds between two readings of the device
NAP = 0.02  # seconds a paused run sleeps between two looks at its buttons


class Log:
    """Events on their way to `run.events` and to disk, in order, with device scalars read in one go.

    `background` writes the checkpoints of the run. `alarms` look at the losses that pass; the loss of reinforcement
    learning means nothing by itself, and has alarms of its own.
    """

    def __init__(self, run: Run):
        from jupyter_gpt.runs.checkpoint import Background

        run.look()
        run.followed = False
        self.run, self.pending, self.looked, self.leads = run, [], 0.0, run.control.leads
        self.path = run.folder / "events.jsonl"
        self.background = Background(run.folder / "checkpoints")
        self.untold: list[Event] = []  # to the run's callbacks
        self.alarms = LossAlarms() if run.kind != "rlhf" else None
        self.trackers = Trackers(run.folder, len(run.events)) if self.leads else None
        self.alarmed(run.events)  # of a resumed run; what they say stands among its events
        self.untold.clear()

    def alarmed(self, events: list[dict]) -> list[dict]:
        """The events with the alarms that they give cause for, each after its cause."""
        if self.alarms is None:
            return events
        found = []
        for event in events:
            alarms = self.alarms.see(event, self.run.recipe)
            found += [event, *(line_of(a, event["time"]) for a in alarms)]
            self.untold += alarms
        return found

    def add(self, event: Event) -> None:
        """Take an event; steps wait up to LOOK seconds, all others are written at once. Of ranks one writes."""
        if not self.leads or isinstance(event, Ready):
            return
        self.pending.append(line_of(event, time.time()))
        self.untold.append(event)
        if not isinstance(event, Step):
            self.flush()
        self.look()

    def look(self) -> None:
        """Flush what has waited for LOOK seconds; called in a long evaluation too, where no event comes."""
        if self.pending and time.monotonic() - self.looked > LOOK:
            self.flush()

    def flush(self) -> None:
        """Read the waiting losses from the device, write all out.

        Raises GPTError at one that is not finite, which is left out, and when the disk is full.
        """
        self.looked = time.monotonic()
        waiting, self.pending = self.pending, []
        read_tensors(waiting)
        odd = [(event, what) for event in waiting if (what := unreadable(event))]
        self.write(self.alarmed(waiting[: waiting.index(odd[0][0])] if odd else waiting))
        if odd:
            event, what = odd[0]
            raise GPTError(diverged(self, what, event["step"]))
        self.look_after_trackers()

    def look_after_trackers(self) -> None:
        """Say which of them have failed: the run goes on without them."""
        for name, why in self.trackers.failed() if self.trackers else ():
            self.warn(f"{name} failed", f"{name} has stopped logging, the run goes on without it: {why}")

    def warn(self, cause: str, text: str) -> None:
        self.write([line_of(Alarm(step=self.run.step, cause=cause, text=text), time.time())])

    def write(self, events: list[dict]) -> None:
        """Append the events to the file, all or none of them, and to the run's in memory in any case."""
        if not events or not self.leads:
            return
        self.run.events.extend(events)
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(event) + "\n" for event in events))
        except OSError:
            if self.path.exists():
                os.truncate(self.path, size)
            raise

    def checkpoints(self, wait: bool = False) -> None:
        """Report the checkpoints that have become whole. Raises the GPTError of one that could not be written."""
        if wait:
            self.background.join()
        for step in self.background.check():
            self.add(Checkpoint(step=step))

    def end(self, event: End | None) -> None:
        """The last event, if there is to be one, after whatever is left. A full disk or a loss that is not finite was
        reported already.
        """
        self.background.join()
        last = [line_of(event, time.time())] if event is not None else []

        def finish_trackers() -> None:
            if self.trackers:
                for name in self.trackers.end("failed" if event is None else event.status):
                    text = f"{name} is still busy with what the run told: it goes on in a process of its own"
                    self.warn(f"{name} busy", text)
                self.look_after_trackers()

        for failing in (self.checkpoints, self.flush, finish_trackers, lambda: self.write(last)):
            with suppress(GPTError, OSError):
                failing()


def unreadable(event: dict) -> str | None:
    """Which figure of an event is not finite, as text; such a gradient has made the weights NaN too."""
    figures = {
        "loss": "loss",
        "grad_norm": "gradient",
        "value_grad_norm": "critic's gradient",
        "val_loss": "validation loss",
    }
    return next((figures[key] for key in figures if not math.isfinite(event.get(key) or 0.0)), None)


def read_tensors(events: list[dict]) -> None:
    """Put numbers in the place of all device scalars, with one wait for the device."""
    import torch

    places = [(event, key) for event in events for key, value in event.items() if isinstance(value, torch.Tensor)]
    if places:
        read = torch.stack([event[key].detach().float() for event, key in places]).tolist()
        for (event, key), value in zip(places, read, strict=True):
            event[key] = value


def are_numbers(model) -> bool:
    """Whether all weights of a model are finite."""
    own = (getattr(parameter, "to_local", lambda p=parameter: p)() for parameter in model.parameters())
    return all(bool(parameter.isfinite().all()) for parameter in own)


def kept(log: Log) -> str:
    """Which checkpoint there is, in words."""
    from jupyter_gpt.runs.checkpoint import latest, step_of

    log.background.join()
    found = latest(log.run.folder / "checkpoints")
    return f"the checkpoint of step {step_of(found)} is kept" if found else "no checkpoint was made before it"


def diverged(log: Log, what: str, step: int) -> str:
    run, lr = log.run, log.run.recipe["lr"]
    return f"the {what} of {run.name} stopped being a number at step {step}; {kept(log)}. Lower --lr (now {lr:g})"


def short_of_memory(log: Log, step: int) -> str:
    name = log.run.name
    return (
        f"memory ran out after step {step} of {name}; {kept(log)}. %gpt unload other models and %gpt resume {name}, or "
        "run it again with a smaller --context, an adapter (--lora) or a smaller model"
    )


def drive(run: Run, preparation: Iterator, resuming: bool, finished: Callable) -> Iterator:
    """Prepare and run a training to its end, yielding to the worker between any two pieces of it.

    A training has `loop()`, a generator of events, `samples()`, one of what the Sample button asks for, `state()`, what
    a checkpoint holds, and `load(folder)`, and `recipe`, `step` and `seconds`; for several ranks `spread()`, `gather()`
    and `evaluates`.

    `finished(training)` keeps the model. Whatever ends the run, its events say how; an error is raised again.
    """
    log, training, status, error, lost = Log(run), None, "stopped", None, False
    try:
        training = yield from prepared(run, preparation, log)
        if training is None and not resuming:
            raise GPTError(f"{run.name} was stopped before its first step: there is nothing to keep")
        if training is not None:
            training.spread()
            retain(run, training, log)
            if resuming:
                training.load(latest_checkpoint(run))
            else:
                save(training, log)
            status = yield from steps(run, training, training.loop(), log)
            training.gather()
            finished(training)
            if status == "finished" and log.leads:
                log.background.clean()
    except BaseException as failure:
        lost = is_lost_rank(failure)
        if is_out_of_memory(failure) and not isinstance(failure, GPTError):
            short = GPTError(short_of_memory(log, training.step if training else 0))
            failure.__traceback__ = None  # its frames hold what was in memory
            status, error = "failed", str(short)
            raise short from failure
        status, error = "failed", str(failure) or type(failure).__name__
        raise
    finally:
        reached = training.step if training else run.step
        seconds = training.seconds if training else 0.0
        causes = still_on(log, training)
        end = End(status=status, step=reached, seconds=seconds, error=error, alarms=causes)
        log.end(None if lost else end)  # of a rank that is gone the run's folder says why, or it was killed
        store.unlock(run.folder)


def retain(run: Run, training, log: Log) -> None:
    """Which checkpoints of the run stay. Raises GPTError for --keep best where nothing is evaluated."""
    from jupyter_gpt.runs.checkpoint import steps as steps_of

    recipe, checkpoints = training.recipe, log.background
    if recipe.keep == BEST and run.kind != "rlhf" and not training.held_out:
        raise GPTError("--keep best compares validation losses, and no data is held out: use --keep last")
    stable = end_of_stable(recipe.steps, recipe.warmup, recipe.decay)
    checkpoints.retention = Retention(recipe.keep, stable, recipe.steps)
    checkpoints.retention.recall(run.events, steps_of(checkpoints.folder))


def still_on(log: Log, training) -> list[str]:
    """The causes of the alarms that were not over when the run ended."""
    return list(log.alarms.causes if log.alarms is not None else training.alarmed if training is not None else ())


def latest_checkpoint(run: Run):
    from jupyter_gpt.runs.checkpoint import latest

    found = latest(run.folder / "checkpoints")
    if found is None:
        raise GPTError(f"{run.name} has no checkpoint to resume from: run its cell again")
    return found


def prepared(run: Run, preparation: Iterator, log: Log) -> Iterator[None]:
    """Run the preparation; returns its Training, or None when it was stopped."""
    while True:
        run.control.look(run, None)
        try:
            event = next(preparation)
        except StopIteration as end:
            if log.leads:
                run.write_recipe(end.value.recipe)
            return end.value
        if event is not None:
            log.add(event)
        yield
        if run.stopping.is_set():
            return None


def steps(run: Run, training, events: Generator, log: Log) -> Iterator:
    """Drive the loop; returns `finished` or `stopped`. Checkpoints are made right after a step, where state is whole.

    A call of the loop goes up to the worker. One that is interrupted stops the run, as it stands after its last step;
    one that raises ends it, with a checkpoint of that step.
    """
    answer, interrupted = None, False
    every = training.recipe.checkpoint_every
    while True:
        try:
            event = following(training, events, answer, log)
        except StopIteration:
            break
        if event is not None and not isinstance(event, Call):
            log.add(event)
        try:
            answer = (yield event) if isinstance(event, Call) else (yield from tell(log))
        except KeyboardInterrupt:
            interrupted = True  # the waiting thread gets it too, and halts the run
            if training.step == training.recipe.steps:
                break
        except Exception:
            checkpoint(training, log)
            log.checkpoints(wait=True)
            raise
        if isinstance(event, Step | Evaluation):
            if isinstance(event, Step):
                log.checkpoints()
                due = training.step % every == 0 if every else run.control.agreed(log.background.due)
                if log.background.retention.wants(training.step) or (due and training.step < training.recipe.steps):
                    checkpoint(training, log)
            else:
                better = log.background.retention.improves(training.step, event.values)
                if better and not log.background.has(training.step):
                    checkpoint(training, log)
        elif event is None:
            log.look()
        if answer is None:
            yield
        while True:
            run.control.look(run, event)
            if run.sampling.is_set():  # while it is paused too
                run.sampling.clear()
                samples = training.samples() if training.evaluates else nothing()
                yield from aside(training, samples, log, run.stopping, lambda event: replace(event, asked=True))
            if not run.paused.is_set() or run.stopping.is_set():
                break
            log.flush()
            time.sleep(NAP)
            yield
        if (interrupted or run.stopping.is_set()) and training.step < training.recipe.steps:
            events.close()
            checkpoint(training, log)
            log.checkpoints(wait=True)
            yield from closing(run, training, log)
            return "stopped"
        if run.skipping.is_set():  # its last evaluation
            break
    log.flush()
    log.background.join()
    return "finished"


def following(training, events: Generator, answer, log: Log):
    """The next event. Raises GPTError if the weights to sample from are not finite."""
    try:
        return events.send(answer)
    except GPTError as error:
        log.flush()
        if are_numbers(training.model):
            raise
        raise GPTError(diverged(log, "output", training.step)) from error


def closing(run: Run, training, log: Log) -> Iterator:
    """Evaluate a stopped run and sample from it, unless its last step did so already, until it is stopped again."""
    step = [e for e in run.events if e.get("step") == training.step and not e.get("asked")]
    kinds = {event["event"] for event in step}
    samples = {(event["prompt"], event["text"]) for event in step if event["event"] == "sample"}

    def new(event: Event) -> Event | None:
        if isinstance(event, Sample):
            return None if (event.prompt, event.text) in samples else event
        return None if isinstance(event, Evaluation) and "evaluation" in kinds else event

    if training.evaluates:
        yield from aside(training, training.closing(kinds), log, run.skipping, new)


def aside(training, events: Generator, log: Log, enough: threading.Event, noted: Callable) -> Iterator:
    """Drive what changes nothing of the training, until `enough` is set or a call of it, which goes up too, is
    interrupted.

    `noted(event)` is what of an event is written down, or None.
    """
    answer = None
    while not enough.is_set():
        log.run.control.look(log.run, None)
        try:
            event = following(training, events, answer, log)
        except StopIteration:
            break
        if event is not None and not isinstance(event, Call) and (kept := noted(event)):
            log.add(kept)
        try:
            answer = (yield event) if isinstance(event, Call) else (yield from tell(log))
        except KeyboardInterrupt:
            break
        if answer is None:
            yield
    events.close()


def tell(log: Log) -> Iterator[Call]:
    """Call the run's callbacks with the events that they have not been told, numbers in the place of device scalars."""
    untold, log.untold = log.untold, []
    for event in untold if log.run.callbacks else ():
        values = getattr(event, "values", None)
        if values:
            event = replace(event, values={k: v.item() if hasattr(v, "item") else v for k, v in values.items()})
        for function in log.run.callbacks:
            yield Call(partial(function, event))


def nothing() -> Generator:
    """What a rank does while the first samples."""
    yield from ()


def checkpoint(training, log: Log) -> None:
    """Begin a checkpoint, once all losses so far are known to be finite."""
    log.flush()
    save(training, log)


def save(training, log: Log) -> None:
    """Write a checkpoint in the background. All ranks take part in gathering what it holds, one writes it."""
    state = training.state()
    if log.leads:
        log.background.save(training.step, *state)
