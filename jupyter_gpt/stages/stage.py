"""The stages that train: the options that mean the same on each of them, and how a run is started and resumed.

Every kind of run has a module beside this one, its stage. It has `RECIPE`, which reads a recipe back;
`preparation(session, run, recipe, variables)`, a generator of progress events that returns the training;
`keep(session, run, training)`, which registers its model; and perhaps `METRICS`. A name is claimed, a folder opened,
and the training goes to the worker of its device: imports of torch happen there, not on the calling thread.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.options import Count, Number, Options, Positive, option
from jupyter_gpt.report.parts import Paragraph, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.runs import control, failure, payload
from jupyter_gpt.runs.events import Metric, cut_events, declared
from jupyter_gpt.runs.launchers import launcher as launchers
from jupyter_gpt.runs.launchers.launcher import HANDLE, SHIPPED, Launch
from jupyter_gpt.runs.provenance import Provenance, check, provenance
from jupyter_gpt.runs.run import ACTIVE, Run, header, parked
from jupyter_gpt.runs.worker import worker
from jupyter_gpt.stages.loop import METRICS

Optimizer = Literal["muon", "adamw"]
Dtype = Literal["float32", "bfloat16"]
PROMPT_TEXTS = "texts in quotes, a $variable with a list of them, or a text file with one per line"  # of --prompts
OVERWRITE = "replace an existing NAME; not needed for the same cell, or the same options on the same data"
OpenShare = Annotated[Number, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
LENGTH, RUNNING = "Length", "Running"
RANK = ("-m", "jupyter_gpt.stages.run_process")  # what a process of a run runs
MICRO_TOKENS = 65536  # tokens of pretraining in one pass, where the memory holds them


def count_or_all(text: str) -> int | str:
    """A number of devices as it is typed. Raises ValueError with what is expected."""
    if text != "all" and not text.isdecimal():
        raise ValueError("a number of devices, or all")
    return text if text == "all" else int(text)


class Bound(Options):
    """The option of every magic: its result can be bound to a variable."""

    out: str | None = option(None, "bind the result to this variable of the notebook", "VAR", only="magic")


def device_count(value: int | str) -> int | str:
    """Raises ValueError for what is neither a number above zero nor "all"."""
    if value != "all" and (isinstance(value, str) or value < 1):
        raise ValueError("must be above zero, or all")
    return value


class Elsewhere(Options):
    """Where a run is made, if not in the kernel. The same run on other devices makes the same model."""

    detach: bool = option(
        False,
        "train in a process of its own, which outlives this kernel, and return at once; %gpt show NAME follows it",
        group=RUNNING,
    )
    devices: Annotated[int | str, AfterValidator(device_count)] | None = option(
        None,
        "train on this many devices, data parallel, in a process each; or on all there are",
        "N|all",
        kind=count_or_all,
        hints=("all",),
        group=RUNNING,
    )
    shard: bool = option(
        False, "divide weights, gradients and optimizer state among the devices (FSDP2)", group=RUNNING
    )
    on: str | None = option(
        None,
        "what starts the processes: processes (on this machine), slurm, ray[:ADDRESS], or another launcher",
        "LAUNCHER",
        hints=SHIPPED,
        group=RUNNING,
    )
    nodes: Count | None = option(None, "machines with that many devices each, of a cluster", "M", group=RUNNING)

    @property
    def elsewhere(self) -> bool:
        """Whether the run is made in processes of its own."""
        return self.detach or self.devices is not None or self.on is not None or self.nodes is not None or self.shard


class Training(Elsewhere):
    """Options of every stage that trains."""

    groups: ClassVar[tuple[str, ...]] = ("Name and data", LENGTH, "Adapter", "Optimization", "Evaluation", RUNNING)

    name: str = option(..., "name of the model and its run", place=True, group="Name and data")
    steps: Count | None = option(None, "optimizer steps; use this in a notebook that is shared", "N", group=LENGTH)
    dtype: Dtype | None = option(
        None,
        "data type of the activations; trained weights stay float32 (default: bfloat16 where the hardware is fast in "
        "it, else float32)",
        group="Optimization",
    )
    seed: Seed = option(0, "random seed of data order, initial weights and sampling", "S", group=RUNNING)
    checkpoint_every: Count | None = option(
        None,
        "steps between checkpoints on disk (default: one per minute, less often if they take over 1% of the time)",
        "N",
        group=RUNNING,
    )
    background: bool = option(False, "return at once; a later cell that needs the model waits for it", group=RUNNING)
    overwrite: bool = option(False, OVERWRITE, group=RUNNING)
    dry_run: bool = option(False, "train nothing: show what would be started, and where", group=RUNNING)
    out: str | None = option(
        None, "bind the result to this variable of the notebook", "VAR", group=RUNNING, only="magic"
    )
    beside: list[str] | None = option(
        None, "earlier runs, drawn into the same charts", "RUN", complete="runs", group="Evaluation", only="magic"
    )
    variables: Mapping | None = option(None, "values of `$name` sources, by name", only="python")


class Finetuning(Training):
    """Options of the stages that train on from a model."""

    lora: Count | None = option(
        None,
        "train a LoRA adapter of this rank and freeze the base (a new head is trained in full)",
        "R",
        group="Adapter",
    )
    lora_targets: list[str] | None = option(
        None,
        "names of the layers it adapts (default: all linear layers but the head)",
        "LAYER",
        hints=("all-linear", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        group="Adapter",
    )


class Schedule(Training):
    """Options of next-token training."""

    tokens: Count | None = option(
        None, "train on this many tokens in total, instead of --steps (10M, 1.5B)", "N", group=LENGTH
    )
    minutes: Positive | None = option(
        None,
        "train for about this long, instead of --steps; the number of steps depends on the machine",
        "M",
        group=LENGTH,
    )
    clip: Positive = option(1.0, "maximum gradient norm (gradient clipping)", "X", group="Optimization")
    checkpointing: bool | None = option(
        None,
        "gradient checkpointing: recompute activations in the backward pass; less memory, a third more work (default: "
        "if the free memory requires it)",
        group="Optimization",
    )
    eval_every: Count | None = option(
        None, "steps between validations (default: ten in a run)", "N", group="Evaluation"
    )
    eval_tokens: Count | None = option(None, "held-out tokens of each validation", "N", group="Evaluation")
    sample_every: Count | None = option(None, "steps between samples (default: six in a run)", "N", group="Evaluation")

    def with_steps(self, steps: int) -> Any:
        """The recipe with its length: evaluations and samples whose distance is open are spread over it."""
        eval_every, sample_every = self.eval_every or max(1, steps // 10), self.sample_every or max(1, steps // 6)
        return self.replace(steps=steps, eval_every=eval_every, sample_every=sample_every)


def one_length(options: Any, *names: str) -> None:
    """Raises GPTError where more than one option sets the length of the run."""
    given = [f"--{name}" for name in names if getattr(options, name) is not None]
    if len(given) > 1:
        raise GPTError(f"{' and '.join(given)} both set the length of the run: give one")


def schedule(options: Any, warmup: float, decay: float) -> dict[str, float]:
    """Warm-up and decay as shares of the steps: as given, else these, or what the other leaves of the run.

    Raises GPTError where together they are longer than the run.
    """
    first, last = options.warmup, options.decay
    if first is not None and last is not None and first + last > 1 + 1e-9:
        raise GPTError(f"--warmup {first:g} and --decay {last:g} are shares of the steps: together they are at most 1")
    first = min(warmup, 1 - (last or 0.0)) if first is None else first
    return {"warmup": first, "decay": min(decay, 1 - first) if last is None else last}


STAGES = ("pretrain", "sft", "classify", "reward", "rlhf")  # kinds of runs, each a module


def stage(kind: str):
    """The module of a kind of run. Raises GPTError for one that this version does not know."""
    if kind not in STAGES:
        raise GPTError(f"runs of the kind {kind} were made by another version of jupyter_gpt")
    return importlib.import_module(f"jupyter_gpt.stages.{kind}")


def metrics_of(run: Run) -> Sequence[Metric]:
    """The metrics that a run declares when it starts; for a run made before runs did, those its stage declares now."""
    begun = any(event["event"] in ("step", "evaluation") for event in run.events)
    metrics = declared(run.events)
    if metrics or not begun:
        return metrics
    own = stage(run.kind)
    return own.metrics_of(run.recipe["algo"]) if run.kind == "rlhf" else getattr(own, "METRICS", METRICS)


def launch(session, options, kind: str, recipe, requested: Mapping, variables: Mapping | None = None) -> Any:
    """Start a run of `recipe`, and wait for it unless in the background; `requested` is what the user asked for.

    With `dry_run` it is a report of what would be started. Raises GPTError, one line, for a name that is taken and
    while another run trains; nothing is touched then.
    """
    name, new = store.check_name(options.name), provenance(kind, requested, variables, sources_of(recipe))
    folder = session.runs.folder(name)
    away = launch_of(folder, options, sent(recipe, variables), resuming=False) if options.elsewhere else None
    if options.dry_run:
        claim(session, name, new, options.overwrite)
        return dry_run_report(name, kind, away)
    with store.writing(f"run {name}"), store.locked(folder, f"{name} is being trained"):
        claim(session, name, new, options.overwrite)
        if away is None:
            only_one(session)
        store.sweep(folder.parent)
        run = open_run(session, name, new, recipe.as_dict())
    if away is not None:
        return start_processes(session, run, away, options.background or options.detach, new_folder=True)
    return start(session, run, recipe, variables, options.background, resuming=False)


def resume(session, options) -> Run:
    """Go on with a run that was stopped, interrupted or failed, from its last checkpoint, to the same end.

    Raises GPTError for a run that has finished, is running, or has nothing to go on from.
    """
    from jupyter_gpt.runs import checkpoint

    name = options.name
    run = session.runs[name]
    if run.status == "finished":
        raise GPTError(f"run {name} has finished all its {run.steps} steps: there is nothing to resume")
    if run.alive:
        what = {"paused": ": unpause it", "stopping": ": wait until it has ended"}
        raise GPTError(f"run {name} is {run.status}{what.get(run.status, ' already')}")
    recipe = stage(run.kind).RECIPE.from_dict(run.recipe)
    newest = checkpoint.latest(run.folder / "checkpoints")
    away = None
    if options.elsewhere:
        away = launch_of(run.folder, options, sent(recipe, options.variables), resuming=newest is not None)
    else:
        only_one(session)
    with store.writing(f"run {name}"), store.locked(run.folder, f"{name} is being trained"):
        store.sweep(run.folder)
        run.events[:] = cut_events(run.folder / "events.jsonl", int(newest.name[5:]) if newest else -1)
    if away is not None:
        return start_processes(session, run, away, options.background or options.detach, new_folder=False)
    return start(session, run, recipe, options.variables, options.background, resuming=newest is not None)


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
    for request in (run.stopping, run.skipping, run.paused, run.sampling):
        request.clear()
    (run.folder / HANDLE).unlink(missing_ok=True)  # of an earlier start, in processes of its own
    run.job = worker("torch").submit(job(session, run, recipe, variables, resuming))
    if not background:
        run.wait()
        warn_of_alarms(run)
    return run


def warn_of_alarms(run: Run) -> None:
    """Of a run that no view has shown."""
    for alarm in [event for event in run.events if event["event"] == "warning"]:
        warnings.warn(f"{run.name}, step {alarm['step']}: {alarm['text']}", stacklevel=3)


def sent(recipe, variables: Mapping | None) -> dict[str, object]:
    """The variables of the notebook that a run of this recipe reads."""
    sources = [*sources_of(recipe), getattr(recipe, "algo", "")]
    names = [found[1] for source in sources if (found := re.match(r"\$([^\W\d]\w*)", source))]
    return {name: (variables or {})[name] for name in names if name in (variables or {})}


@dataclass(frozen=True)
class Away:
    """How a run is to be started in processes of its own, and the variables that are sent to them, pickled."""

    name: str  # of the launcher
    launch: Launch
    variables: bytes


def launch_of(folder: Path, where: Elsewhere, variables: Mapping, resuming: bool) -> Away:
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
    options = [flag for flag, given in (("--resume", resuming), ("--shard", where.shard)) if given]
    launch = Launch(
        folder=folder,
        rank=(*RANK, str(folder), *options),
        devices=devices_of(where.devices, name),
        nodes=where.nodes or 1,
        environment=environment,
        detached=where.detach,
        settings={**launchers.settings_of(name), **({"address": address} if address else {})},
    )
    found.preview(launch)
    return Away(name, launch, payload.pickled(variables))


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

    def finish(training, status: str) -> None:
        if not run.control.leads:
            return
        own.keep(session, run, training)
        for older in parked(run.folder):
            shutil.rmtree(older, ignore_errors=True)
        if status == "finished":
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)

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


def keep_model(session, run: Run, training, start=None, name: str | None = None, made=None, **more) -> None:
    """Register what was trained, `start` being the model that it was made from. Its name and provenance are those of
    the run unless given."""
    name, made = name or run.name, made or run.provenance
    more = {"licence": start.licence if start else None, **more}
    lineage = [*(start.lineage if start else []), f"{name} ({made.kind})"]
    session.models.keep(name, training.model, training.tokenizer, made.kind, made, lineage, training.step, **more)
