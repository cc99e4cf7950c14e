"""Merging: an adapter and its base become one full model."""

from __future__ import annotations

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.models import Model
from jupyter_gpt.runs.provenance import Provenance, provenance
from jupyter_gpt.runs.worker import on_worker
from jupyter_gpt.stages.launch import claim


def merge(session, name: str, into: str | None = None, *, overwrite: bool = False) -> Model:
    """Make a full model of the adapter `name` and its base: `into`, or `NAME-merged`. Both stay as they are.

    Raises GPTError for a model that is no adapter, and for a name that something else made, unless `overwrite`.
    """
    session.finish_first(name)
    model = session.models.about(name)
    if not getattr(model, "base", None):
        raise GPTError(f"{name} is no adapter: it is whole already")
    into = store.check_name(into or f"{name}-merged")
    if into in (name, model.base):
        raise GPTError(f"{into} is part of what is merged: choose another name")
    made = provenance("merge", {"model": name})
    claim(session, into, made, overwrite)
    return on_worker("torch", lambda: merged(session, session.models[name], into, made))


def merged(session, model: Model, into: str, made: Provenance) -> Model:
    """The work of it."""
    from jupyter_gpt.nn.lora import merged

    return session.models.keep(
        into,
        merged(session.models.full_precision(model)),
        model.tokenizer,
        "merge",
        made,
        [*model.lineage, f"{into} (merge)"],
        model.step,
        licence=model.licence,
        labels=model.labels,
    )
