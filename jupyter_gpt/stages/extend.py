"""A run made longer: `%gpt resume NAME --steps 2000`.

The learning rate of a run rises, stays, and falls towards its end (`nn/schedule.py`). A longer run goes on from a
checkpoint before the fall, keeps the rate up for longer, and falls at its own end (Hägele et al. 2024): what it comes
to is what a run of that length would have come to. For that the checkpoint at the end of the stable phase stays on
disk. The warm-up keeps its number of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.schedule import phases
from jupyter_gpt.runs import checkpoint
from jupyter_gpt.runs.events import Note, last_of
from jupyter_gpt.runs.run import Run

LENGTHS = ("steps", "tokens", "minutes")


@dataclass(frozen=True)
class Extension:
    """The recipe of the longer run, the checkpoint it goes on from, and what its report says of that."""

    recipe: Any
    begin: Path
    notes: tuple[Note, ...]

    @property
    def step(self) -> int:
        return checkpoint.step_of(self.begin)

    def cut(self) -> None:
        """Remove the later checkpoints: they are of the shorter run."""
        folder = self.begin.parent
        for step in checkpoint.steps(folder):
            if step > self.step:
                checkpoint.remove(folder, step)


def extended(run: Run, recipe: Any, options: Any) -> Extension | None:
    """What `options` ask for; None where they set no length. Raises GPTError, one line, for a run that cannot go on."""
    if (steps := length(run, recipe, options)) is None:
        return None
    folder = run.folder / "checkpoints"
    if steps <= run.step:
        raise GPTError(f"run {run.name} has taken {run.step:,} steps already: {steps:,} steps are not more")
    there = checkpoint.steps(folder)
    if not there:
        raise GPTError(none_kept(run, recipe))
    rise, stable = phases(recipe.steps, recipe.warmup, recipe.decay)
    longer = recipe.replace(steps=steps, warmup=rise / steps)
    stable = min(stable, phases(steps, longer.warmup, longer.decay)[1])
    before = [step for step in there if step <= stable and (step or not run.step)]
    begin = max(before, default=there[-1])
    note = f"made longer, from {recipe.steps:,} to {steps:,} steps, from its checkpoint of step {begin:,}"
    if not before:
        note += (
            ": its learning rate had been falling by then and rises again to that of the longer schedule, so this is "
            f"not what a run of {steps:,} steps would have come to"
        )
    if again := read_again(run, longer):
        note += f". Its data were prepared for the shorter run: it reads {' and '.join(again)}"
    return Extension(longer, checkpoint.at(folder, begin), (Note(text=note),))


def length(run: Run, recipe: Any, options: Any) -> int | None:
    """The number of steps that `options` ask for, from the beginning of the run."""
    given = [name for name in LENGTHS if getattr(options, name) is not None]
    if len(given) > 1:
        raise GPTError(f"--{given[0]} and --{given[1]} both set the length of the run: give one")
    if not given:
        return None
    if not recipe.steps:
        raise GPTError(f"run {run.name} has not begun: leave --{given[0]} out, or run its cell again")
    if options.tokens is not None:
        batch = getattr(recipe, "batch_tokens", None)
        if not batch:
            raise GPTError(f"--tokens is for pretraining and supervised finetuning: {run.name} counts --steps")
        return math.ceil(options.tokens / batch)
    if options.minutes is not None:
        last = last_of(run.events, "step")
        if not last.get("seconds"):
            raise GPTError(f"run {run.name} has no step whose time is known: give --steps")
        return int(60 * options.minutes * last["step"] / last["seconds"])
    return options.steps


def read_again(run: Run, recipe: Any) -> list[str]:
    """The sources of which it will read the same text more than once, though they have more."""
    try:
        for name, key in (("documents", "sources"), ("conversations", "counts")):
            path = run.folder / "data" / f"{name}.json"
            sources = store.read_json(path)[key] if path.exists() else []
            tokens = (
                recipe.steps * getattr(recipe, "batch_tokens", 0) / max(1e-9, sum(each["weight"] for each in sources))
            )
            times = {
                each.get("name") or each["source"]: tokens * each["weight"] / each["tokens"]
                for each in sources
                if each["tokens"] and not each.get("exhausted", True)
            }
            if again := [f"{source} {count:.1f} times" for source, count in times.items() if count > 1.05]:
                return again
    except (ValueError, KeyError, TypeError):  # damaged: the run says so when it begins
        return []
    return []


def none_kept(run: Run, recipe: Any) -> str:
    """Why there is nothing to go on from, and what would do instead."""
    rise, stable = phases(recipe.steps, recipe.warmup, recipe.decay)
    why = (
        "its learning rate falls as soon as it has risen, so nothing was kept before that"
        if stable <= rise
        else "it has kept no checkpoint"
    )
    return (
        f"run {run.name} cannot be made longer: {why}. Train on from its model with --base {run.name}, or run its cell "
        "again with --keep last and more steps"
    )
