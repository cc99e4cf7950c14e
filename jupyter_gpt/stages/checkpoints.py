"""A checkpoint of a run as a model that can be prompted, while the run goes on wherever it is."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.models import Model, stamp_of
from jupyter_gpt.runs import checkpoint
from jupyter_gpt.runs.retention import BEST, best_of
from jupyter_gpt.runs.run import Run
from jupyter_gpt.runs.worker import worker
from jupyter_gpt.stages.stage import stage

LATEST = "latest"
CHOICES = (LATEST, BEST)
NAME = 50  # characters of the run's name that such a model's name has


def checked_step(value: int | str) -> int | str:
    """Raises ValueError for what names no checkpoint."""
    if value not in CHOICES and (isinstance(value, str) or value < 0):
        raise ValueError(f"must be zero or more, {LATEST} or {BEST}")
    return value


def typed_step(text: str) -> int | str:
    """A step as it is typed. Raises ValueError with what is expected."""
    if text not in CHOICES and not text.isdecimal():
        raise ValueError(f"a step, {LATEST} or {BEST}")
    return text if text in CHOICES else int(text)


def model_at(session, name: str, step: int | str, variables: Mapping | None = None) -> str:
    """The name of a model in memory with the weights that run `name` had at `step`, or in its latest or best
    checkpoint.

    It is on no disk, and only the last one of a run is kept. Raises GPTError for a run that has no such checkpoint.
    """
    run = session.runs[name]
    if run.kind in ("classify", "reward"):
        raise GPTError(f"{name} ({run.kind}) returns scores and no text: choose another run")
    called = called_at(run, folder_of(run, step))
    if store.home() / "models" / called in session.models.resident:
        return called
    forget(session, run.folder)
    return worker("torch").submit(brought(session, run, step, variables)).wait()


def forget(session, folder: Path) -> None:
    """Unload the model of a checkpoint of the run in `folder`: what it is changes with the run."""
    for model in [m for m in session.models.resident.values() if m.source == str(folder)]:
        session.models.unload(model.name)


def called_at(run: Run, found: Path) -> str:
    return f"{run.name[:NAME]}.step-{int(found.name[5:])}"


def at_step(session, given: Any) -> Any:
    """The options of a prompt, with the model of the checkpoint that their `step` names."""
    if given.step is None:
        return given
    if given.model is None:
        raise GPTError("--step is that of a run: name it")
    chosen = {name: value for name, value in given.chosen.items() if name != "step"}
    return type(given).of(**{**chosen, "model": model_at(session, given.model, given.step, given.variables)})


def folder_of(run: Run, step: int | str) -> Path:
    """The checkpoint. Raises GPTError, which says what there is."""
    folder = run.folder / "checkpoints"
    there = checkpoint.steps(folder)
    if not there and run.status == "finished":
        raise GPTError(f"run {run.name} has finished, its checkpoints are gone: leave --step out")
    if not there:
        raise GPTError(f"run {run.name} has no checkpoint yet")
    wanted = max(there) if step == LATEST else best_of(run.events, there) if step == BEST else step
    if wanted not in there:
        kept = ", ".join(map(str, there))
        what = "evaluated" if step == BEST else f"of step {step}"
        raise GPTError(f"run {run.name} has no checkpoint {what}: those of steps {kept} are kept")
    return checkpoint.at(folder, int(wanted))


def brought(session, run: Run, step: int | str, variables: Mapping | None) -> Generator[Any, Any, str]:
    """Load it, on the worker; returns its name. The training is built as for a resumed run, and only its model kept."""
    recipe = stage(run.kind).RECIPE.from_dict(run.recipe)
    preparing = stage(run.kind).preparation(session, run, recipe, variables)
    while True:
        try:
            next(preparing)
        except StopIteration as end:
            training: Any = end.value
            break
        yield
    while True:
        found = folder_of(run, step)
        try:
            training.load(found)
            break
        except GPTError:
            if found.exists():  # else the run has gone on, and removed it meanwhile
                raise
    called = called_at(run, found)
    place = store.home() / "models" / called
    module = training.model.requires_grad_(False).eval()
    base = getattr(training.recipe, "base", None) or getattr(training.recipe, "policy", None)
    adapter = hasattr(module, "peft_config")
    if not adapter and getattr(training, "ends", None) and module.can_generate():
        module.generation_config.eos_token_id = sorted(training.ends)
    session.models.resident[place] = Model(
        called,
        place,
        run.kind,
        run.provenance,
        [f"{run.name} ({run.kind}, step {training.step})"],
        sum(parameter.numel() for parameter in module.parameters()),
        training.step,
        module,
        training.tokenizer,
        source=str(run.folder),
        base=base if adapter else None,
        stamp=stamp_of(place),
    )
    return called
