"""The tables of `%gpt models`, `%gpt models --catalogue` and `%gpt runs`, as static bundles.

What depends on the machine or the clock is marked (`≈1.23`, `«cpu»`), so that nbval folds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.memory import amount
from jupyter_gpt.notebook.views.bundle import Bundle, about, escape, marked, quoted
from jupyter_gpt.notebook.views.table import html_table, text_table
from jupyter_gpt.runs.run_figures import MEAN, last_of, standing, training_loss

MODELS = ("model", "parameters", "kind", "lineage", "licence", "on disk", "where")


def models_bundle(models: Mapping[str, object]) -> Bundle:
    """One row a model: parameters, base or assistant, what it was made from, licence, where it is. Loads none.

    What this kernel has not touched in the user's cache differs from machine to machine: those models stand in a
    table of their own, marked whole. A model that cannot be read is listed as damaged: the others are still there.
    """
    unused = set(models.unused())
    rows, listed, others, metadata = [], [], [], {}
    for name in models:
        try:
            model = models.about(name)
        except GPTError:
            row, facts, metadata[name] = (name, "", "damaged", *[""] * 4), {"name": name}, {}
        else:
            row, facts = _row(model), _about(model)
            metadata[name] = {key: getattr(model, key) for key in ("device", "dtype", "memory", "on_disk")}
        if name in unused:
            others.append(row)
        else:
            rows.append((*row[:5], *map(_marked_place, row[5:])))
            listed.append(facts)
    return _with_cache(_bundle("models", MODELS, rows, "lrlllrl", listed, metadata), others)


def _row(model) -> tuple[str, ...]:
    size = "" if model.parameters is None else f"{model.parameters:,}"
    if getattr(model, "base", None):
        size += f", {model.trained:,} its own ({100 * model.trained / model.parameters:.2g}%)"
    kind, lineage = kind_of(model), " → ".join(model.lineage)
    if model.kind == "endpoint":
        return model.name, size, kind, lineage, "", "", "endpoint"
    where = f"{model.device}, {model.dtype}, {amount(model.memory)}" if model.resident else "on disk"
    return model.name, size, kind, lineage, model.licence or "not stated", amount(model.on_disk), where


def _about(model) -> dict:
    """What every machine agrees on."""
    return {
        "name": model.name,
        "parameters": model.parameters,
        "assistant": kind_of(model) == "assistant",
        "lineage": list(model.lineage),
        "licence": model.licence,
        "base": getattr(model, "base", None),
        "trained": getattr(model, "trained", 0),
    }


def _marked_place(cell: str) -> str:
    """Sizes and devices are of this machine; that something is on disk, or elsewhere, is not."""
    return cell if cell in ("", "on disk", "endpoint") else quoted(cell)


def _with_cache(bundle: Bundle, rows: list) -> Bundle:
    """The bundle, and below it what else the cache holds; there is always something in the marks to fold."""
    said = "also in this user's cache:"
    text, html = "nothing", "nothing"
    if rows:
        text = f"\n{text_table(MODELS, rows, 'lrlllrl')}\n"
        html = html_table(MODELS, rows, "lrlllrl").replace("«", "&laquo;").replace("»", "&raquo;")
    return replace(
        bundle, text=f"{bundle.text}\n\n{said} {quoted(text)}", html=f"{bundle.html}<p>{said}</p>{marked(html)}"
    )


def catalogue_bundle() -> Bundle:
    """One row a published model: base models, then assistants, each with its licence and what that allows."""
    from jupyter_gpt.models.catalogue import ABSENT, CATALOGUE

    head = ("model", "parameters", "kind", "licence", "terms", "year")
    rows = [(e.name, short(e.parameters), _kind(e.assistant), e.licence, e.terms, str(e.year)) for e in CATALOGUE]
    data = {"view": "catalogue", "models": [entry._asdict() for entry in CATALOGUE]}
    text = f"{text_table(head, rows, 'lrlllr')}\n\n{ABSENT}"
    return Bundle(text, f"{html_table(head, rows, 'lrlllr')}<p>{escape(ABSENT)}</p>", data)


def short(count: float) -> str:
    """`135M`, `1.24B`: a number of parameters to three digits, as model pages write it."""
    size, unit = (count / 1e9, "B") if count >= 999.5e6 else (count / 1e6, "M")
    return f"{size:.3g}{unit}"


def kind_of(model) -> str:
    """What a model is good for: a head with one label scores, one with several classifies; neither speaks."""
    labels = getattr(model, "labels", None)
    if labels:
        return "classifier" if len(labels) > 1 else "reward"
    return _kind(model.has_chat)


def _kind(assistant: bool) -> str:
    return "assistant" if assistant else "base"


def runs_bundle(runs: Mapping[str, object]) -> Bundle:
    """One row a run: name, kind, how it stands, steps, losses in nats, the step of the last validation, tokens,
    seconds.

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
        validated = "" if facts["val_loss"] is None else f" at step {about(facts['val_step'], 0)}"
        losses = about(facts["loss"]), about(facts["val_loss"]) + validated
        spent = about(facts["tokens"], 0), about(facts["seconds"], 0)
        rows.append((name, run.kind, standing(run), f"{step} of {run.steps:,}", *losses, *spent))
        listed.append({"name": name, "kind": run.kind})
        reached[name] = {"status": run.status, "steps": run.steps, **facts}
    head = (
        "run",
        "kind",
        "status",
        "steps",
        f"loss, {MEAN.removesuffix(' steps')}",
        "validation loss",
        "tokens",
        "seconds",
    )
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
    step, evaluation = last_of(events, "step"), last_of(events, "evaluation")
    return {
        "step": step.get("step", 0),
        "loss": training_loss(events),
        "val_loss": evaluation.get("val_loss"),
        "val_step": evaluation.get("step"),
        "tokens": step.get("tokens"),
        "seconds": step.get("seconds"),
    }
