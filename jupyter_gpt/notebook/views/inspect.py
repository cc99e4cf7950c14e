"""`gpt.tokens`, `gpt.batch`, `gpt.search`, `gpt.show` and `gpt.plan`: what there is to look at, as `%gpt VERB` shows
it.

What they return shows itself where a notebook shows a value, and is of use without one.
"""

from __future__ import annotations

import random
from dataclasses import replace

from jupyter_gpt.errors import GPTError, nearest

FAR = 100_000  # rows: to lay out more, just to draw some of them, takes longer than a look is worth
SLIDE_COUNT = 2048  # devices on which GPT-3 and LLaMA are set side by side: as many as LLaMA had
LAST = "last"


class Tokens(list):
    """The integers of a text's tokens; `pieces` has of each its text and bytes, `report` is what is shown."""

    def __init__(self, model: str, pieces: list, varies: bool):
        super().__init__(piece.id for piece in pieces)
        self.model, self.pieces, self.varies = model, pieces, varies

    @property
    def report(self):
        from jupyter_gpt.notebook.views.tokens import tokens_bundle

        return tokens_bundle(self.model, self.pieces, varies=self.varies)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return self.report._repr_mimebundle_()


def tokens(session, model: str, text: str) -> Tokens:
    """A text as the model's tokens: a list of their integers, with `.pieces`. Raises GPTError for an endpoint, which
    tells none.
    """
    from jupyter_gpt.notebook.views.tokens import pieces

    return Tokens(model, pieces(session.models[model].tokenizer, text), varies(session, model))


def batch(session, run: str, *, rows: int = 4, seed: int | None = None):
    """The first `rows` rows that a pretraining run reads, or by `seed` any of the whole run: token ids `(B, T+1)`.

    Raises GPTError for a run of another kind.
    """
    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.data.packing import Rows

    found = session.runs[run]
    if rows < 1:
        raise GPTError(f"a batch has at least one row, not {rows}")
    if found.kind != "pretrain":
        raise GPTError(f"%gpt batch shows what a pretraining run reads, and {found.name} is of the kind {found.kind}")
    recipe, documents = found.recipe, Documents.open(found.folder / "data")
    size = max(recipe["rows"], rows)
    indices = range(size)
    if seed is not None:
        every = min(FAR, recipe["steps"] * recipe["batch_tokens"] // recipe["context"])
        indices = random.Random(seed).sample(range(max(size, every)), size)
    return Rows(documents, recipe["context"], recipe["seed"]).batch(indices)


def varies(session, name: str) -> bool:
    """Whether the tokens of run or model `name` may differ from machine to machine.

    They do where the text does (this Python's own source), or how much of it is read (a run by minutes), or
    where the tokenizer came from elsewhere.
    """
    if name not in session.runs or session.runs[name].kind != "pretrain":
        return True
    recipe = session.runs[name].recipe
    by_machine = "python" in recipe["mixture"] or recipe["minutes"] is not None
    return by_machine or recipe["tokenizer"] not in ("bpe", "char")


def search(session, index: str, query: str, k: int = 4, **options) -> list:
    """The `k` chunks of an index nearest to `query`, best first: `.text`, `.source`, `.page`, `.score`.

    `options` are those of `gpt.indexes[NAME].search`: `hybrid`, `rerank`, `mmr`, `filter`.
    """
    return session.indexes[index].search(query, k, **options)


def plan(
    session,
    model: str | float | None = None,
    tokens: str | float | None = None,
    *,
    flops: str | float | None = None,
    dollars: str | float | None = None,
    **options,
):
    """What it costs to train a model, or the compute-optimal one of a budget; without either, GPT-3 and LLaMA, a list.

    `options` are those of `jupyter_gpt.stages.planning.plan`: `device`, `count`, `utilization`, `dollars_per_hour`,
    `context`, `optimizer`. Raises GPTError, one line, for what makes no sense.
    """
    from jupyter_gpt.stages import planning as planner
    from jupyter_gpt.stages.published import KNOWN

    budget = next((f"--{name}" for name, value in (("flops", flops), ("dollars", dollars)) if value is not None), None)
    fixed = next((name for name, value in (("MODEL", model), ("--tokens", tokens)) if value is not None), None)
    if budget and fixed:
        raise GPTError(f"%gpt plan finds the model and its tokens for {budget}: leave {fixed} out")
    if budget:
        return planner.optimal(flops=flops, dollars=dollars, **options)
    if model is None and tokens is not None:
        raise GPTError("%gpt plan wants a model for so many --tokens: its parameters (124M), or a known one")
    if model is None:
        return [planner.plan(name, **{"count": SLIDE_COUNT, **options}) for name in KNOWN]
    return planner.plan(model, tokens, **options)


def show(session, *names: str, tokens: bool = False):
    """The view of a run, of rankings, or of the `last` completion (by `tokens` token by token): a bundle, which shows
    itself.

    Its `.text` is the view as text. Of several names a list of them. Raises GPTError for a name that is neither.
    """
    bundles = views(session, names or (LAST,), tokens)
    return bundles[0] if len(bundles) == 1 else bundles


def views(session, names, tokens: bool = False) -> list:
    """A bundle for each name."""
    if list(names) == [LAST]:
        return [view_of_last(session, tokens)]
    check(session, names, tokens)
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
    from jupyter_gpt.notebook.views.rank import ranking_report
    from jupyter_gpt.stages.rank import reopened

    return ranking_report(reopened(session, name))


def view_of_last(session, tokens: bool):
    """The last completion; with `tokens`, token by token."""
    from jupyter_gpt.notebook.views.completion import last_bundle
    from jupyter_gpt.notebook.views.token_view import token_bundle

    completion = session.last
    if not tokens and completion.trace:
        from jupyter_gpt.notebook.views.trace import trace_bundle

        return trace_bundle(completion)
    if not tokens:
        return last_bundle(completion)
    if completion.remote:
        return token_bundle(completion)
    from jupyter_gpt.nn.modules import context_of
    from jupyter_gpt.stages.alternatives import with_alternatives

    model = session.models[completion.model]
    return token_bundle(with_alternatives(model, completion), model.tokenizer, context_of(model.module))


def view_of_run(run):
    """The picture of what a run has reached, and why it failed if it did: the cell that said so may be gone."""
    from jupyter_gpt.notebook.views.follow import began, nothing_yet
    from jupyter_gpt.notebook.views.run_report import run_bundle
    from jupyter_gpt.report.parts import Paragraph

    try:
        report = run_bundle(run) if began(run) else nothing_yet(run)
    except KeyError as error:
        raise GPTError(
            f"run {run.name} cannot be shown: {error} is missing, another version of jupyter_gpt made it"
        ) from error
    end = run.events[-1] if run.status == "failed" and run.events else {}
    return replace(report, parts=[*report.parts, Paragraph(f"why: {end['error']}")]) if end.get("error") else report
