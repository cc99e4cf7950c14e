"""`%gpt show`: the report of a run, of rankings, or of the last completion.

The most probable alternatives at each token of a completion are computed here, in one forward pass over it, so that
sampling need not keep alternatives that may never be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.options import option
from jupyter_gpt.runs.worker import worker
from jupyter_gpt.stages.stage import Bound

LAST = "last"
COUNT = 5  # alternatives of a token
BLOCK = 128  # positions whose distributions over the vocabulary are sorted together


class Show(Bound):
    """a run's curves and samples; rankings; `last`: the last prompt and its answer

    Opens the view of a run again, after its cell is gone or the page was loaded anew; live if it still runs. While a
    cell of the notebook runs, type it into a subshell console (command palette: New Subshell Console for Notebook). Of
    rankings it shows the answers there are. %gpt show last shows the last completion: the exact prompt with its special
    tokens, the answer, tokens in and out, seconds, tokens/s; of a technique the whole tree of what was asked.
    """

    magic: ClassVar[str] = "%gpt show"
    examples: ClassVar[tuple[str, ...]] = ("%gpt show storyteller", "%gpt show last")

    names: list[str] = option(
        (LAST,),
        "the run, rankings, or `last`; further runs are drawn beside it",
        place="NAME",
        positional=True,
        many=True,
        needed=True,
        complete="runs",
        hints=(LAST,),
    )
    tokens: bool = option(False, "with `last`: each token's probability, its alternatives, the work it took")


def show(session, options: Show):
    """The view of a run, of rankings, or of the `last` completion: a report, which shows itself. Several runs are drawn
    into one; of other names it is a list. Raises GPTError for a name that is neither.
    """
    reports = views(session, list(options.names), options.tokens)
    return reports[0] if len(reports) == 1 else reports


def views(session, names, tokens: bool = False) -> list:
    """A report for each name."""
    if list(names) == [LAST]:
        return [view_of_last(session, tokens)]
    check(session, names, tokens)
    if len(names) > 1 and all(name in session.runs for name in names):
        first, *beside = (session.runs[name] for name in names)
        return [view_of_run(first, beside)]
    return [
        view_of_run(session.runs[name]) if name in session.runs else view_of_rankings(session, name) for name in names
    ]


def check(session, names, tokens: bool) -> None:
    """Raises GPTError for a name that is neither a run nor rankings, and for the tokens of either."""
    if tokens:
        raise GPTError("--tokens shows the tokens of a completion: %gpt show last --tokens")
    for name in names:
        if name not in session.runs and name not in session.rankings:
            raise GPTError(
                f"there is no run and there are no rankings {name}{nearest(name, [*session.runs, *session.rankings])}"
            )


def view_of_rankings(session, name: str):
    """What was ranked under a name, as it stands."""
    from jupyter_gpt.stages.rank import reopened
    from jupyter_gpt.stages.ranking_task import ranking_report

    return ranking_report(reopened(session, name))


def view_of_last(session, tokens: bool):
    """The last completion; with `tokens`, token by token."""
    from jupyter_gpt.inference.completion_report import last_report
    from jupyter_gpt.inference.token_report import token_report

    completion = session.last
    if not tokens and completion.trace:
        from jupyter_gpt.prompting.trace import trace_report

        return trace_report(completion)
    if not tokens:
        return last_report(completion)
    if completion.remote:
        return token_report(completion)
    from jupyter_gpt.nn.modules import context_of

    model = session.models[completion.model]
    return token_report(with_alternatives(model, completion), model.tokenizer, context_of(model.module))


def view_of_run(run, beside=()):
    """The picture of what a run has reached, with others drawn `beside` it, and why it failed if it did: the cell that
    said so may be gone.
    """
    from jupyter_gpt.notebook.views.follow import began, nothing_yet
    from jupyter_gpt.notebook.views.run_report import run_report
    from jupyter_gpt.report.parts import Paragraph

    try:
        report = run_report(run, beside) if began(run) else nothing_yet(run)
    except KeyError as error:
        raise GPTError(
            f"run {run.name} cannot be shown: {error} is missing, another version of jupyter_gpt made it"
        ) from error
    end = run.events[-1] if run.status == "failed" and run.events else {}
    return replace(report, parts=[*report.parts, Paragraph(f"why: {end['error']}")]) if end.get("error") else report


def with_alternatives(model, completion):
    """The completion with its `top` filled in by one pass of `model` on the worker.

    Unchanged if it has them, or if its prompt no longer tokenizes to as many tokens.
    """
    from jupyter_gpt.data.render import encode

    prompt = encode(model.tokenizer, completion.prompt)
    if any(completion.top) or not completion.tokens or not prompt or len(prompt) != completion.prompt_tokens:
        return completion

    def job():
        yield
        return alternatives(model.module, prompt, completion.tokens, COUNT)

    return replace(completion, top=worker("torch").submit(job()).wait())


def alternatives(
    module, prompt: Sequence[int], tokens: Sequence[int], count: int
) -> list[tuple[tuple[int, float], ...]]:
    """For each of `tokens`, sampled after `prompt`, the `count` most probable tokens as (id, log-probability in nats).

    They are of the model's own distribution; `prompt` has at least one id.
    """
    import torch

    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *tokens[:-1]]], device=module.device)
        logits = module(input_ids=ids, use_cache=False, logits_to_keep=len(tokens)).logits[0]  # (len(tokens), V)
        found = []
        for block in logits.split(BLOCK):
            values, places = torch.log_softmax(block.float(), dim=-1).topk(min(count, block.shape[-1]))
            pairs = zip(places.tolist(), values.tolist(), strict=True)
            found += [tuple(zip(ids, nats, strict=True)) for ids, nats in pairs]
    return found
