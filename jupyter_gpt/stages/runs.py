"""`%gpt runs`, `stop` and `resume`: training runs, those of earlier kernels included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jupyter_gpt.options import Count, Positive, option
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages import launch
from jupyter_gpt.stages.stage import Bound, Elsewhere


class Runs(Bound):
    """training runs and their status

    Lists every training run of this folder, also those of earlier kernels: its status, how far it got, its losses. A
    run whose loss has diverged says so.
    """

    magic: ClassVar[str] = "%gpt runs"


class Stop(Bound):
    """stop a run gracefully, after the current step

    Ends a run gracefully: the model as of its last step is evaluated and sampled from once, then kept, and %gpt resume
    goes on from it. Stop it again, or press ■ meanwhile, and it is kept without that evaluation. A third time kills
    the processes of a run that has some and does not end: it goes on from its last checkpoint.
    """

    magic: ClassVar[str] = "%gpt stop"
    examples: ClassVar[tuple[str, ...]] = ("%gpt stop storyteller",)

    name: str = option(..., "the run's name", place=True, complete="runs")


class Resume(Bound, Elsewhere):
    """go on with a run from its last checkpoint

    Goes on with a run that was stopped, failed, or lost its kernel, in this kernel or a new one. A $variable that it
    was trained on has to exist again.

    With --steps, --tokens or --minutes the run is made longer, also one that has finished. It goes on from the
    checkpoint before its learning rate fell, keeps the rate up for longer, and lets it fall at the new end: the result
    is that of a run which had been started with that length and as many steps of warm-up. It reads the data that were
    prepared for it, more often. Where the rate falls as soon as it has risen (classifiers; --decay 1) no such
    checkpoint is kept: the run goes on from its last one, if --keep last has kept it, at the rate of the longer
    schedule, and says so.
    """

    magic: ClassVar[str] = "%gpt resume"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt resume storyteller",
        "%gpt resume storyteller --steps 2000",
        "%gpt resume storyteller --devices 2 --detach",
    )

    name: str = option(..., "the run's name", place=True, complete="runs")
    steps: Count | None = option(None, "optimizer steps of the whole run, those that it has taken included", "N")
    tokens: Count | None = option(None, "tokens of the whole run, instead of --steps (10M, 1.5B)", "N")
    minutes: Positive | None = option(None, "minutes of the whole run at its speed so far, instead of --steps", "M")
    background: bool = option(False, "return at once; a later cell that needs the model waits for it")
    variables: Mapping | None = option(None, "values of `$name` sources, by name", only="python")


def stop(session, options: Stop) -> Run:
    """Stop a run and wait until its model is kept."""
    run = session.runs[options.name]
    run.stop()
    return run.wait()


def resume(session, options: Resume) -> Run:
    """Go on to the same end. Raises GPTError for a run that has finished, is running, or has nothing to go on from."""
    return launch.resume(session, options)
