"""The tables of `%gpt models`, `%gpt models --catalogue` and `%gpt runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.memory import amount
from jupyter_gpt.nn.sizes import short
from jupyter_gpt.report.parts import Inline, Paragraph, Part, Table, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.runs.run_figures import MEAN, last_of, recent, standing

LOSS = f"loss, {MEAN.removesuffix(' steps')}"
RUNS = ("run", "kind", "status", "steps", LOSS, "validation loss", "tokens", "seconds")
MODELS = ("model", "parameters", "kind", "lineage", "licence", "on disk", "where")


def models_report(models: Any) -> Report:
    """One row a model: parameters, base or assistant, what it was made from, licence, where it is. Loads none.

    What this kernel has not touched in the user's cache differs from machine to machine: those models stand in a
    table of their own, which varies as a whole. A model that cannot be read is listed as damaged.
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
            rows.append(row)
            listed.append(facts)
    table = Table(MODELS, others, "lrlllrl") if others else Paragraph("nothing")
    cache = [Paragraph("also in this user's cache:"), Varies([table])]
    return Report(
        "", [_table("models", MODELS, rows, "lrlllrl"), *cache], {"view": "models", "models": listed}, metadata
    )


def _row(model) -> tuple[Inline, ...]:
    size = "" if model.parameters is None else short(model.parameters)
    if getattr(model, "base", None):
        size += f" ({short(model.trained)} in the adapter)"
    facts = (model.name, size, kind_of(model), " → ".join(model.lineage))
    if model.kind == "endpoint":
        return *facts, "", "", "endpoint"
    where = Varies(f"{model.device}, {model.dtype}, {amount(model.memory)}") if model.resident else "on disk"
    return *facts, model.licence or "not stated", Varies(amount(model.on_disk)), where


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


def catalogue_report() -> Report:
    """One row a published model: base models, then assistants, each with its licence and what that allows."""
    from jupyter_gpt.models.catalogue import ABSENT, CATALOGUE

    head = ("model", "parameters", "kind", "licence", "terms", "year")
    rows = [(e.name, short(e.parameters), _kind(e.assistant), e.licence, e.terms, str(e.year)) for e in CATALOGUE]
    data = {"view": "catalogue", "models": [entry._asdict() for entry in CATALOGUE]}
    return Report("", [Table(head, rows, "lrlllr"), Paragraph(ABSENT)], data)


def kind_of(model) -> str:
    """What a model is good for: a head with one label scores, one with several classifies; neither speaks."""
    labels = getattr(model, "labels", None)
    if labels:
        return "classifier" if len(labels) > 1 else "reward"
    return _kind(model.has_chat)


def _kind(assistant: bool) -> str:
    return "assistant" if assistant else "base"


def runs_report(runs: Mapping[str, Any]) -> Report:
    """One row a run: name, kind, status, steps, losses in nats, the step of the last validation, tokens, seconds.

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
        step = facts["step"] if run.status == "finished" else Varies(facts["step"])
        validated = [] if facts["val_loss"] is None else [" at step ", Varies(facts["val_step"])]
        losses = Varies(facts["loss"]), [Varies(facts["val_loss"]), *validated]
        spent = Varies(facts["tokens"]), Varies(facts["seconds"], 0)
        rows.append((name, run.kind, standing(run), [step, " of ", run.steps], *losses, *spent))
        listed.append({"name": name, "kind": run.kind})
        reached[name] = {"status": run.status, "steps": run.steps, **facts}
    return Report("", [_table("runs", RUNS, rows, "lllrrrrr")], {"view": "runs", "runs": listed}, reached)


def _table(what: str, head: Sequence[str], rows: list, sides: str) -> Part:
    none = Paragraph(f"No {what} yet. Train one with %%pretrain NAME.")
    return Table(head, rows, sides) if rows else none


def _facts(events: Sequence[dict]) -> dict:
    """The newest step, losses, tokens and seconds among a run's events, None where there is none yet."""
    step, evaluation = last_of(events, "step"), last_of(events, "evaluation")
    return {
        "step": step.get("step", 0),
        "loss": recent(events),
        "val_loss": evaluation.get("val_loss"),
        "val_step": evaluation.get("step"),
        "tokens": step.get("tokens"),
        "seconds": step.get("seconds"),
    }
