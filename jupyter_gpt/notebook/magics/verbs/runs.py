"""`%gpt runs`, `stop` and `resume`: training runs, those of earlier kernels included."""

from __future__ import annotations

from jupyter_gpt.notebook.magics.listing import runs_bundle
from jupyter_gpt.notebook.magics.notebook import say, show, watch
from jupyter_gpt.notebook.magics.options import BACKGROUND, OUT, Command, Option
from jupyter_gpt.report.parts import Varies
from jupyter_gpt.runs.run_figures import standing

RUN = Option("RUN", "the run's name", complete="runs", needed=True)

RUNS = Command(
    name="%gpt runs",
    summary="the runs and how they stand",
    about=(
        "Lists every training run of this folder, also those of earlier kernels: how it stands, how far it "
        "got, its losses. A run whose loss has diverged says so."
    ),
    groups=(("Options", (OUT,)),),
)
STOP = Command(
    name="%gpt stop",
    summary="end a run after the step in hand",
    about=(
        "Ends a run gracefully: the model as of its last step is evaluated and sampled from once, then kept, and %gpt "
        "resume goes on from it. Stop it again, or press ■ meanwhile, and it is kept without that evaluation."
    ),
    groups=(("Options", (RUN, OUT)),),
    examples=("%gpt stop storyteller",),
)
RESUME = Command(
    name="%gpt resume",
    summary="go on with a run from its last checkpoint",
    about=(
        "Goes on with a run that was stopped, failed, or lost its kernel, in this kernel or a new one. A "
        "$variable that it was trained on has to exist again."
    ),
    groups=(("Options", (RUN, BACKGROUND, OUT)),),
    examples=("%gpt resume storyteller",),
)


def runs(gpt, given: dict, ip) -> object:
    """Shows the table; the result is `gpt.runs`."""
    show(runs_bundle(gpt.runs))
    return gpt.runs


def stop(gpt, given: dict, ip) -> object:
    """Ends the run and waits until its model is kept; the result is the run."""
    run = gpt.stop(given["run"])
    say(f"{run.name} is {standing(run)} at step ", Varies(run.step), f" of {run.steps:,}")
    return run


def resume(gpt, given: dict, ip) -> object:
    """Goes on, shown live; the result is the model, or the run in the background."""
    background = given.get("background", False)
    run = gpt.resume(given["run"], variables=ip.user_ns, background=True)
    watch(run, background=background)
    return run if background or "out" not in given else gpt.models[run.name]
