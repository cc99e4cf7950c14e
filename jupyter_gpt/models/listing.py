"""The tables of `%gpt models`: the models that are here, and the published ones (`--catalogue`)."""

from __future__ import annotations

from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.sizes import amount, short
from jupyter_gpt.report.parts import Inline, Paragraph, Table, Varies
from jupyter_gpt.report.report import Report

MODELS = ("model", "parameters", "kind", "lineage", "licence", "on disk", "where")


def models_report(models: Any) -> Report:
    """One row per model: parameters, base or assistant, what it was made from, licence, where it is. Loads none.

    The models in the user's cache that this kernel has not used differ from machine to machine: they have a table of
    their own, which varies as a whole. A model that cannot be read is listed as damaged.
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
    none = Paragraph("No models yet. Train one with %%pretrain NAME.")
    own = Table(MODELS, rows, "lrlllrl", wrap=True) if rows else none
    unused_table = Table(MODELS, others, "lrlllrl", wrap=True) if others else Paragraph("nothing")
    parts = [own, Paragraph("also in this user's cache:"), Varies([unused_table])]
    return Report("", parts, {"view": "models", "models": listed}, metadata)


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
    """One row a published model: base models, with the tokens they were pretrained on, then assistants; each with its
    licence and what that allows."""
    from jupyter_gpt.models.catalogue import ABSENT, CATALOGUE

    head = ("model", "parameters", "tokens", "kind", "licence", "terms", "year")
    rows = [
        (e.name, short(e.parameters), tokens(e), _kind(e.assistant), e.licence, e.terms, str(e.year)) for e in CATALOGUE
    ]
    data = {"view": "catalogue", "models": [entry._asdict() for entry in CATALOGUE]}
    return Report("", [Table(head, rows, "lrrlllr", wrap=True), Paragraph(ABSENT)], data)


def tokens(entry) -> str:
    """Of a base model, what it was pretrained on; nothing for an assistant."""
    return short(entry.tokens) if entry.tokens else "" if entry.assistant else "not published"


def kind_of(model) -> str:
    """What a model is good for: a head with one label scores, one with several classifies; neither speaks."""
    labels = getattr(model, "labels", None)
    if labels:
        return "classifier" if len(labels) > 1 else "reward"
    return _kind(model.has_chat)


def _kind(assistant: bool) -> str:
    return "assistant" if assistant else "base"
