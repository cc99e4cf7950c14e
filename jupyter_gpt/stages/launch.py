"""Launching runs: a name is claimed, a folder opened, and the training goes to the worker of its device.

Every kind of run has a module of the session beside this one, its stage, with three functions: `recipe_from(values)`
reads a recipe back, `preparation(session, run, recipe, variables)` is a generator of progress events that returns the
training, and `keep(session, run, training)` registers its model. Imports of torch happen on the worker, not on whoever
asked.
"""

from __future__ import annotations

import importlib
import os
import shutil
import warnings
from collections.abc import Generator, Mapping, Sequence

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.events import Metric, cut_events, declared
from jupyter_gpt.runs.provenance import Provenance, check, provenance
from jupyter_gpt.runs.run import ACTIVE, Run, header, parked
from jupyter_gpt.runs.worker import worker
from jupyter_gpt.stages.algorithm import algorithm_of

STAGES = {
    "pretrain": "pretrain",
    "sft": "sft",
    "classify": "classify",
    "reward": "reward",
    "rlhf": "rlhf",
}  # kind of run: its module


def stage(kind: str):
    """The module of a kind of run. Raises GPTError for one that this version does not know."""
    if kind not in STAGES:
        raise GPTError(f"runs of the kind {kind} were made by another version of jupyter_gpt")
    return importlib.import_module(f"jupyter_gpt.stages.{STAGES[kind]}")


def metrics_of(run: Run) -> Sequence[Metric]:
    """What a run declares when it starts; of one made before runs did, what its stage declares today."""
    begun = any(event["event"] in ("step", "evaluation") for event in run.events)
    if (found := declared(run.events)) or not begun:
        return found
    if run.kind == "rlhf":
        return () if run.recipe["algo"].startswith("$") else algorithm_of(run.recipe["algo"], {}).METRICS
    loops = {"classify": "classify_training", "reward": "reward_training"}
    return importlib.import_module(f"jupyter_gpt.stages.{loops.get(run.kind, 'loop')}").METRICS


def launch(session, options, kind: str, recipe, requested: Mapping, variables: Mapping | None = None) -> Run:
    """Start a run of `recipe`, and wait for it unless in the background; `requested` is what the user asked for.

    Raises GPTError, one line, for a name that is taken and while another run trains; nothing is touched then.
    """
    name, new = store.check_name(options.name), provenance(kind, requested, variables, sources_of(recipe))
    folder = session.runs.folder(name)
    with store.writing(f"run {name}"), store.locked(folder, f"{name} is being trained"):
        claim(session, name, new, options.overwrite)
        only_one(session)
        store.sweep(folder.parent)
        run = open_run(session, name, new, recipe.as_dict())
    return start(session, run, recipe, variables, options.background, resuming=False)


def resume(session, name: str, *, variables: Mapping | None = None, background: bool = False) -> Run:
    """Go on with a run that was stopped, interrupted or failed, from its last checkpoint, to the same end.

    Raises GPTError for a run that has finished, is running, or has nothing to go on from.
    """
    from jupyter_gpt.runs import checkpoint

    run = session.runs[name]
    if run.status == "finished":
        raise GPTError(f"run {name} has finished all its {run.steps} steps: there is nothing to resume")
    if run.alive:
        what = {"paused": ": unpause it", "stopping": ": wait until it has ended"}
        raise GPTError(f"run {name} is {run.status}{what.get(run.status, ' already')}")
    recipe = stage(run.kind).RECIPE.from_dict(run.recipe)
    only_one(session)
    found = checkpoint.latest(run.folder / "checkpoints")
    with store.writing(f"run {name}"), store.locked(run.folder, f"{name} is being trained"):
        store.sweep(run.folder)
        run.events[:] = cut_events(run.folder / "events.jsonl", int(found.name[5:]) if found else -1)
    return start(session, run, recipe, variables, background, resuming=found is not None)


def claim(session, name: str, new: Provenance, overwrite: bool) -> None:
    """Raises GPTError where the model or the run of that name was made by something else."""
    store.check_name(name)
    holders = []
    if name in session.runs and not (overwrite and damaged(session, name)):
        run = session.runs[name]
        if run.status in ACTIVE:
            raise GPTError(f"run {name} is still running: %gpt stop {name}, or wait for it")
        if run.step or name in session.models:  # else it never began: there is nothing to lose
            holders.append(run)
    if name in session.models:
        holders.append(session.models.about(name))
    for holder in holders:
        check(name, holder.provenance, new, overwrite)


def sources_of(recipe) -> list[str]:
    """Where the data of a recipe comes from: the sources of its mixture, the lines of a cell of labelled texts, its
    rewards.
    """
    lines = (getattr(recipe, "cell", None) or "").splitlines()
    return [
        *getattr(recipe, "mixture", ()),
        *(line.strip() for line in lines),
        *(getattr(recipe, "reward", None) or ()),
    ]


def damaged(session, name: str) -> bool:
    """Whether the run cannot be read: whoever overwrites it need not read it."""
    try:
        return session.runs[name] is None
    except GPTError:
        return True


def only_one(session) -> None:
    """Refuse a second run beside one that trains: both would be slower than one after the other."""
    busy = next((run for run in session.runs.known.values() if run.alive), None)
    if busy:
        raise GPTError(
            f"run {busy.name} is {busy.status} (step {busy.step:,} of {busy.steps:,}): "
            f"wait for it, or %gpt stop {busy.name}"
        )


def open_run(session, name: str, new: Provenance, recipe: dict) -> Run:
    """An empty run folder; an older run of that name is parked until the new one has something to keep."""
    folder = session.runs.folder(name)
    aside = folder.with_name(f".old-{name}@{len(parked(folder))}")
    if folder.exists():
        os.replace(folder, aside)
    try:
        store.write_text(folder / "recipe.yaml", header(new, recipe))
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        if aside.exists():
            os.replace(aside, folder)
        raise
    run = session.runs.known[folder] = Run(folder)
    return run


def start(session, run: Run, recipe, variables: Mapping | None, background: bool, resuming: bool) -> Run:
    """Put the run on the worker of its device, and wait for it unless `background`."""
    for button in (run.stopping, run.skipping, run.paused, run.sampling):
        button.clear()
    run.job = worker("torch").submit(job(session, run, recipe, variables, resuming))
    if not background:
        run.wait()
        for alarm in [event for event in run.events if event["event"] == "warning"]:  # a view would show them
            warnings.warn(f"{run.name}, step {alarm['step']}: {alarm['text']}", stacklevel=2)
    return run


def job(session, run: Run, recipe, variables: Mapping | None, resuming: bool) -> Generator:
    """The generator the worker runs."""
    from jupyter_gpt.runs.runner import drive

    own = stage(run.kind)

    def keep(training, status: str) -> None:
        own.keep(session, run, training)
        for older in parked(run.folder):
            shutil.rmtree(older, ignore_errors=True)
        if status == "finished":
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)

    try:
        with store.writing(f"run {run.name}"):
            yield from drive(run, own.preparation(session, run, recipe, variables), resuming, keep)
    except BaseException:
        give_back(session, run)
        raise


def give_back(session, run: Run) -> None:
    """After a failure: bring the parked older run back if the new one has not come past its first step."""
    older = parked(run.folder)
    if older and run.step == 0:
        shutil.rmtree(run.folder)
        os.replace(older[-1], run.folder)
        session.runs.known.pop(run.folder, None)
