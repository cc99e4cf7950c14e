"""The tables of `%gpt models`, `%gpt models --catalogue` and `%gpt runs`, as static bundles.

What depends on the machine or the clock is marked (`≈1.23`, `«cpu»`), so that nbval folds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jupyter_gpt.errors import GPTError
from jupyter_gpt.views.bundle import Bundle, about, escape, quoted
from jupyter_gpt.views.table import html_table, text_table


def models_bundle(models: Mapping[str, object]) -> Bundle:
    """One row a model: name, parameters, what it was made from, where it is. Loads none."""
    rows, listed = [], []
    for model in map(models.about, models):
        where = quoted(f"{model.device}, {model.dtype}") if model.resident else "on disk"
        where = "endpoint" if model.kind == "endpoint" else where
        size = "" if model.parameters is None else f"{model.parameters:,}"
        rows.append((model.name, size, " → ".join(model.lineage), where))
        listed.append({"name": model.name, "parameters": model.parameters, "lineage": list(model.lineage)})
    return _bundle("models", ("model", "parameters", "lineage", "where"), rows, "lrll", listed)


def catalogue_bundle() -> Bundle:
    """One row a published model: base models, then assistants, each with its licence and what that allows."""
    from jupyter_gpt.session.catalogue import ABSENT, CATALOGUE

    head = ("model", "parameters", "kind", "licence", "terms", "year")
    rows = [
        (e.name, short(e.parameters), _kind(e.assistant), e.licence, e.terms, str(e.year)) for e in CATALOGUE
    ]
    data = {"view": "catalogue", "models": [entry._asdict() for entry in CATALOGUE]}
    text = f"{text_table(head, rows, 'lrlllr')}\n\n{ABSENT}"
    return Bundle(text, f"{html_table(head, rows, 'lrlllr')}<p>{escape(ABSENT)}</p>", data)


def short(count: float) -> str:
    """`135M`, `1.24B`: a number of parameters to three digits, as model pages write it."""
    size, unit = (count / 1e9, "B") if count >= 999.5e6 else (count / 1e6, "M")
    return f"{size:.3g}{unit}"


def _kind(assistant: bool) -> str:
    return "assistant" if assistant else "base"


def runs_bundle(runs: Mapping[str, object]) -> Bundle:
    """One row a run: name, kind, how it stands, steps, last losses in nats per token, tokens, seconds.

    A run that cannot be read is listed as damaged: the others are still there.
    """
    rows, listed, reached = [], [], {}
    for name in runs:
        try:
            run = runs[name]
        except GPTError:
            rows.append((name, "", "damaged", *[""] * 5))
            listed.append({"name": name})
            continue
        facts = _facts(run.events)
        step = f"{facts['step']:,}" if run.status == "finished" else about(facts["step"], 0)
        losses = about(facts["loss"]), about(facts["val_loss"])
        spent = about(facts["tokens"], 0), about(facts["seconds"], 0)
        rows.append((name, run.kind, run.status, f"{step} of {run.steps:,}", *losses, *spent))
        listed.append({"name": name, "kind": run.kind})
        reached[name] = {"status": run.status, "steps": run.steps, **facts}
    head = ("run", "kind", "status", "steps", "loss", "validation", "tokens", "seconds")
    return _bundle("runs", head, rows, "lllrrrrr", listed, reached)


def _bundle(
    what: str, head: Sequence[str], rows: list, sides: str, listed: list[dict], metadata: dict | None = None
) -> Bundle:
    data = {"view": what, what: listed}
    if not rows:
        text = f"no {what} yet: %%pretrain NAME makes one"
        return Bundle(text, f"<p>{text}</p>", data)
    return Bundle(text_table(head, rows, sides), html_table(head, rows, sides), data, metadata or {})


def _facts(events: Sequence[dict]) -> dict:
    """The newest step, losses, tokens and seconds among a run's events, None where there is none yet."""
    facts = {"step": 0, "loss": None, "val_loss": None, "tokens": None, "seconds": None}
    wanted = {"step": ("step", "loss", "tokens", "seconds"), "evaluation": ("val_loss",)}
    for event in reversed(events):
        keys = wanted.pop(event["event"], ())
        facts.update({key: event[key] for key in keys})
        if not wanted:
            break
    return facts
