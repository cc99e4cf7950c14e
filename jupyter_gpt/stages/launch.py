"""How a run is started and resumed: a name is claimed, a folder opened, and the training goes to the worker of its
device, or to processes of its own. Imports of torch happen there, not on the calling thread.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.report.parts import Paragraph, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.runs import control, failure, payload, trackers
from jupyter_gpt.runs.events import cut_events
from jupyter_gpt.runs.launchers import launcher as launchers
from jupyter_gpt.runs.launchers.launcher import HANDLE, Launch
from jupyter_gpt.runs.provenance import Provenance, check, provenance
from jupyter_gpt.runs.run import ACTIVE, Run, header, parked
from jupyter_gpt.runs.worker import worker
from jupyter_gpt.stages.checkpoints import forget
from jupyter_gpt.stages.stage import Elsewhere, stage

RANK = ("-m", "jupyter_gpt.stages.run_process")  # what a process of a run runs


def launch(session, options, kind: str, recipe, requested: Mapping, variables: Mapping | None = None) -> Any:
    """Start a run of `recipe`, and wait for it unless in the background; `requested` is what the user asked for.

    With `dry_run` it is a report of what would be started. Raises GPTError, one line, for a name that is taken and
    while another run trains; nothing is touched then.
    """
    name, new = store.check_name(options.name), provenance(kind, requested, variables, sources_of(recipe))
    folder = session.runs.folder(name)
    trackers.check(options.log_to or ())
    away = launch_of(folder, options, recipe, variables) if options.elsewhere else None
    if options.dry_run:
        claim(session, name, new, options.overwrite)
        return dry_run_report(name, kind, away)
    with store.writing(f"run {name}"), store.locked(folder, f"{name} is being trained"):
        claim(session, name, new, options.overwrite)
        if away is None:
            only_one(session)
        store.sweep(folder.parent)
        run = open_run(session, name, new, recipe.as_dict())
        if options.log_to:
            trackers.choose(folder, options.log_to)
    if away is not None:
        return start_processes(session, run, away, options.background or options.detach, new_folder=True)
    return start(session, run, recipe, variables, options, resuming=False)


def resume(session, options) -> Run:
    """Go on with a run that was stopped, interrupted or failed, from its last checkpoint, to the same end; or with any
    run to another end, see `extend.py`.

    Raises GPTError for a run that has finished, is running, or has nothing to go on from.
    """
    from jupyter_gpt.runs import checkpoint
    from jupyter_gpt.stages.extend import extended

    name = options.name
    run = session.runs[name]
    if run.alive:
        what = {"paused": ": unpause it", "stopping": ": wait until it has ended"}
        raise GPTError(f"run {name} is {run.status}{what.get(run.status, ' already')}")
    recipe = stage(run.kind).RECIPE.from_dict(run.recipe)
    longer = extended(run, recipe, options)
    if run.status == "finished" and longer is None:
        raise GPTError(
            f"run {name} has finished all its {run.steps} steps, there is nothing to resume: --steps makes it longer"
        )
    newest = checkpoint.latest(run.folder / "checkpoints") if longer is None else longer.begin
    away = None
    if options.elsewhere:
        away = launch_of(run.folder, options, recipe, options.variables)
    else:
        only_one(session)
    with store.writing(f"run {name}"), store.locked(run.folder, f"{name} is being trained"):
        store.sweep(run.folder)
        if longer is not None:
            forget(session, run.folder)
            longer.cut()
            recipe = longer.recipe
            run.write_recipe(recipe)
        run.events[:] = cut_events(
            run.folder / "events.jsonl", checkpoint.step_of(newest), longer.notes if longer else ()
        )
    if away is not None:
        return start_processes(session, run, away, options.background or options.detach, new_folder=False)
    return start(session, run, recipe, options.variables, options, resuming=newest is not None)


def claim(session, name: str, new: Provenance, overwrite: bool) -> None:
    """Raises GPTError where the model or the run of that name was made by something else."""
    store.check_name(name)
    existing = []
    if name in session.runs and not (overwrite and damaged(session, name)):
        run = session.runs[name]
        if run.status in ACTIVE:
            raise GPTError(f"run {name} is still running: %gpt stop {name}, or wait for it")
        if run.step or name in session.models:  # else it never began: there is nothing to lose
            existing.append(run)
    if name in session.models:
        existing.append(session.models.about(name))
    for each in existing:
        check(name, each.provenance, new, overwrite)


def sources_of(recipe) -> list[str]:
    """The data sources of a recipe: those of its mixture, the lines of a cell, its rewards."""
    lines = (getattr(recipe, "cell", None) or "").splitlines()
    rewards = getattr(recipe, "reward", None) or ()
    return [*getattr(recipe, "mixture", ()), *(line.strip() for line in lines), *rewards]


def damaged(session, name: str) -> bool:
    """Whether the run cannot be read: whoever overwrites it need not read it."""
    try:
        return session.runs[name] is None
    except GPTError:
        return True


def only_one(session) -> None:
    """Raises GPTError while another run trains: two at once would be slower than one after the other."""
    busy = next((run for run in session.runs.known.values() if run.here), None)
    if busy:
        raise GPTError(
            f"run {busy.name} is {busy.status} (step {busy.step:,} of {busy.steps:,}): "
            f"wait for it, or %gpt stop {busy.name}"
        )


def open_run(session, name: str, new: Provenance, recipe: dict) -> Run:
    """An empty run folder; an older run of that name is parked until the new one has something to keep."""
    folder = session.runs.folder(name)
    forget(session, folder)
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


def start(session, run: Run, recipe, variables: Mapping | None, options, resuming: bool) -> Run:
    """Put the run on the worker of its device, and wait for it unless in the background."""
    run.callbacks = tuple(options.callbacks or ())
    for request in (run.stopping, run.skipping, run.paused, run.sampling):
        request.clear()
    (run.folder / HANDLE).unlink(missing_ok=True)  # of an earlier start, in processes of its own
    run.job = worker("torch").submit(job(session, run, recipe, variables, resuming))
    if not options.background:
        run.wait()
        warn_of_alarms(run)
    return run


def warn_of_alarms(run: Run) -> None:
    """Of a run that no view has shown."""
    for alarm in [event for event in run.events if event["event"] == "warning"]:
        warnings.warn(f"{run.name}, step {alarm['step']}: {alarm['text']}", stacklevel=3)


def sent(recipe, variables: Mapping | None) -> dict[str, object]:
    """The variables of the notebook that a run of this recipe reads."""
    sources = [*sources_of(recipe), *(getattr(recipe, name, None) or "" for name in ("algo", "loss"))]
    names = [found[1] for source in sources if (found := re.match(r"\$([^\W\d]\w*)", source))]
    return {name: (variables or {})[name] for name in names if name in (variables or {})}


@dataclass(frozen=True)
class Away:
    """How a run is to be started in processes of its own, and the variables that are sent to them, pickled."""

    name: str  # of the launcher
    launch: Launch
    variables: bytes


def launch_of(folder: Path, where: Elsewhere, recipe: Any, variables: Mapping | None) -> Away:
    """Raises GPTError, one line, for what cannot be started; nothing is touched."""
    name, _, address = (where.on or "processes").partition(":")
    found = launchers.launcher(name)
    environment = {
        "JUPYTER_GPT_HOME": str(store.home()),
        "JUPYTER_GPT_CACHE": str(store.cache()),
        "JUPYTER_GPT_CONFIG": str(store.settings().absolute()),
        "PYTHONPATH": os.pathsep.join(own_path()),
    }
    if not where.detach:
        environment[failure.KERNEL] = failure.this_process()
    launch = Launch(
        folder=folder,
        rank=(*RANK, str(folder), *(["--shard"] if where.shard else [])),
        devices=devices_of(where.devices, name),
        nodes=where.nodes or 1,
        environment=environment,
        detached=where.detach,
        settings={**launchers.settings_of(name), **({"address": address} if address else {})},
    )
    recipe.check_devices(launch.devices * launch.nodes, where.shard)
    if where.callbacks:
        raise GPTError("callbacks are called in this kernel: leave --detach, --devices, --on and --nodes out")
    found.preview(launch)
    return Away(name, launch, payload.pickled(sent(recipe, variables)))


def own_path() -> list[str]:
    """Where this kernel imports from, beside the folder it works in and what is installed."""
    installed = (sys.prefix, sys.base_prefix)
    return [path for path in sys.path if path and not any(Path(path).is_relative_to(each) for each in installed)]


def devices_of(wanted: int | str | None, launcher: str) -> int:
    """How many ranks a node has. Raises GPTError for more devices than this machine has."""
    if launcher != "processes":
        if wanted == "all":
            raise GPTError(f"--devices all is known for this machine only: with --on {launcher} give their number")
        return int(wanted or 1)
    if wanted is None:
        return 1
    import torch

    from jupyter_gpt.runs.launchers.processes import cores

    there = torch.cuda.device_count()
    if wanted == "all":
        return max(1, there)
    if there == 0 and int(wanted) > cores():
        raise GPTError(f"--devices {wanted}: this machine has no GPU and {cores()} cores, for a process each")
    if there and int(wanted) > there:
        raise GPTError(f"--devices {wanted}: this machine has {there} GPU{'s' if there > 1 else ''}")
    return int(wanted)


def dry_run_report(name: str, kind: str, away: Away | None) -> Report:
    """What would be started."""
    where = Paragraph("in this kernel")
    if away is not None:
        where = Paragraph(Varies(launchers.launcher(away.name).preview(away.launch)), "code")
    return Report(f"{name}: {kind}, not started (--dry-run)", [where], {"view": "dry run", "name": name})


def start_processes(session, run: Run, away: Away, background: bool, new_folder: bool) -> Run:
    """Start the run in processes of its own, and wait for it unless `background`. This process holds its lock."""
    try:
        with store.writing(f"run {run.name}"):
            (run.folder / control.FILE).unlink(missing_ok=True)
            failure.clear(run.folder)
            launch = replace(
                away.launch, environment={**away.launch.environment, **payload.write(run.folder, away.variables)}
            )
            handle = launchers.launcher(away.name).start(launch)
            launchers.write_handle(away.name, launch, handle)
    except BaseException:
        if new_folder:
            shutil.rmtree(run.folder, ignore_errors=True)
            session.runs.known.pop(run.folder, None)
            if older := parked(run.folder):
                os.replace(older[-1], run.folder)
        raise
    finally:
        store.unlock(run.folder)
    run.follow()
    if not background:
        run.wait()
        warn_of_alarms(run)
    return run


def job(session, run: Run, recipe, variables: Mapping | None, resuming: bool) -> Generator:
    """The generator the worker runs."""
    from jupyter_gpt.runs.runner import drive

    own = stage(run.kind)

    def finish(training) -> None:
        if not run.control.leads:
            return
        own.keep(session, run, training)
        for older in parked(run.folder):
            shutil.rmtree(older, ignore_errors=True)

    try:
        with store.writing(f"run {run.name}"):
            yield from drive(run, own.preparation(session, run, recipe, variables), resuming, finish)
    except BaseException:
        if run.control.leads:
            give_back(session, run)
        raise


def give_back(session, run: Run) -> None:
    """After a failure: bring the parked older run back if the new one has not come past its first step."""
    older = parked(run.folder)
    if older and run.step == 0:
        shutil.rmtree(run.folder)
        os.replace(older[-1], run.folder)
        session.runs.known.pop(run.folder, None)
