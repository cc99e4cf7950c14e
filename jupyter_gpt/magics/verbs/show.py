"""`%gpt show`: the view of a run again, or the last completion with nothing hidden."""

from __future__ import annotations

from dataclasses import replace

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.magics.notebook import show
from jupyter_gpt.magics.options import OUT, Command, Option
from jupyter_gpt.training.run_figures import ACTIVE
from jupyter_gpt.views.bundle import Bundle, escape

LAST = "last"

SHOW = Command(
    name="%gpt show",
    summary="a run's curves and samples; rankings; `last`: the last prompt and its answer",
    about=(
        "Opens the view of a run again, after its cell is gone or the page was loaded anew; live if it still "
        "runs. Of rankings it shows the answers there are. %gpt show last shows the last completion: the exact prompt with its special tokens, the "
        "answer, tokens in and out, seconds, tokens/s; of a technique the whole tree of what was asked."
    ),
    groups=(("Options", (
        Option("RUN", "the run, rankings, or `last`; further runs are drawn beside it", complete="runs", hints=(LAST,),
               many=True, needed=True),
        Option("--tokens", "with `last`: each token's probability, its alternatives, the work it took",
               kind=None),
        OUT,
    )),),
    examples=("%gpt show storyteller", "%gpt show last"),
)  # fmt: skip


def show_it(gpt, given: dict, ip) -> object:
    """Shows it and returns at once; the result is the run, the list of them, or the completion."""
    if given["run"] == [LAST]:
        return show_last(gpt, given.get("tokens", False))
    if given.get("tokens"):
        raise GPTError("--tokens shows the tokens of a completion: %gpt show last --tokens")
    for name in given["run"]:
        if name not in gpt.runs and name not in gpt.rankings:
            raise GPTError(f"there is no run and there are no rankings {name}{nearest(name, [*gpt.runs, *gpt.rankings])}")
    if all(name not in gpt.runs for name in given["run"]):
        return show_rankings(gpt, given["run"])
    return show_runs(gpt, given["run"])


def show_rankings(gpt, names: list[str]) -> object:
    """What was ranked under each name, as it stands."""
    from jupyter_gpt.session.rank import reopened
    from jupyter_gpt.views.rank import rank_bundle

    shown = [reopened(gpt, name) for name in names]
    for ranked in shown:
        show(rank_bundle(ranked))
    return shown if len(shown) > 1 else shown[0]


def show_last(gpt, tokens: bool) -> object:
    """The last completion; with `tokens`, token by token."""
    from jupyter_gpt.views.completion import last_bundle
    from jupyter_gpt.views.token_view import token_bundle

    completion = gpt.last
    if not tokens and completion.trace:
        from jupyter_gpt.views.trace import trace_bundle

        show(trace_bundle(completion))
    elif not tokens:
        show(last_bundle(completion))
    elif completion.remote:
        show(token_bundle(completion))
    else:
        from jupyter_gpt.inference.forward import context_of
        from jupyter_gpt.session.alternatives import with_alternatives

        model = gpt.models[completion.model]
        full = with_alternatives(model, completion)
        show(token_bundle(full, model.tokenizer, context_of(model.module)))
    return completion


def show_runs(gpt, names: list[str]) -> object:
    """Live while the run goes on and a person watches; otherwise the picture of what it has reached."""
    from jupyter_gpt.views.curve import run_bundle
    from jupyter_gpt.views.follow import began, follow, is_live, nothing_yet

    first, *others = shown = [gpt.runs[name] for name in names]
    if first.status in ACTIVE and is_live():
        follow(first, run_bundle, overlays=others, background=True)
    else:
        for run in shown:
            try:
                bundle = run_bundle(run) if began(run) else nothing_yet(run)
            except KeyError as error:
                raise GPTError(f"run {run.name} cannot be shown: {error} is missing, another version of jupyter_gpt made it") from error
            show(with_reason(run, bundle))
    return shown if others else first


def with_reason(run, bundle: Bundle) -> Bundle:
    """The bundle, and why the run failed if it did: the cell that said so may be gone, or was over already."""
    end = run.events[-1] if run.status == "failed" and run.events else {}
    if not end.get("error"):
        return bundle
    return replace(bundle, text=f"{bundle.text}\nwhy: {end['error']}", html=f"{bundle.html}\n<p>why: {escape(end['error'])}</p>")
