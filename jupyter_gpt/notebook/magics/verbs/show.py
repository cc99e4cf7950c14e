"""`%gpt show`: the view of a run again, or the last completion with nothing hidden."""

from __future__ import annotations

from jupyter_gpt.notebook.magics.notebook import show
from jupyter_gpt.notebook.magics.options import OUT, Command, Option
from jupyter_gpt.notebook.views import inspect as look
from jupyter_gpt.runs.run_figures import ACTIVE

SHOW = Command(
    name="%gpt show",
    summary="a run's curves and samples; rankings; `last`: the last prompt and its answer",
    about=(
        "Opens the view of a run again, after its cell is gone or the page was loaded anew; live if it still "
        "runs. Of rankings it shows the answers there are. %gpt show last shows the last completion: the exact "
        "prompt with its special tokens, the "
        "answer, tokens in and out, seconds, tokens/s; of a technique the whole tree of what was asked."
    ),
    groups=(
        (
            "Options",
            (
                Option(
                    "RUN",
                    "the run, rankings, or `last`; further runs are drawn beside it",
                    complete="runs",
                    hints=(look.LAST,),
                    many=True,
                    needed=True,
                ),
                Option(
                    "--tokens", "with `last`: each token's probability, its alternatives, the work it took", kind=None
                ),
                OUT,
            ),
        ),
    ),
    examples=("%gpt show storyteller", "%gpt show last"),
)


def show_it(gpt, given: dict, ip) -> object:
    """Shows it and returns at once; the result is the run, the rankings, the list of them, or the completion."""
    from jupyter_gpt.notebook.views.follow import follow, is_live
    from jupyter_gpt.notebook.views.run_report import run_bundle
    from jupyter_gpt.stages.rank import reopened

    names, tokens = given["run"], given.get("tokens", False)
    if names == [look.LAST]:
        show(*look.views(gpt, names, tokens))
        return gpt.last
    look.check(gpt, names, tokens)
    shown = [gpt.runs[name] if name in gpt.runs else reopened(gpt, name) for name in names]
    if names[0] in gpt.runs and shown[0].status in ACTIVE and is_live():
        overlays = [other for name, other in zip(names[1:], shown[1:], strict=True) if name in gpt.runs]
        follow(shown[0], run_bundle, overlays=overlays, background=True)
    else:
        for bundle in look.views(gpt, names):
            show(bundle)
    return shown if len(shown) > 1 else shown[0]
