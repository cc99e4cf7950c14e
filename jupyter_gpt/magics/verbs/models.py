"""`%gpt models`: every model, in memory or on disk."""

from __future__ import annotations

from jupyter_gpt.magics.listing import models_bundle
from jupyter_gpt.magics.notebook import show
from jupyter_gpt.magics.options import OUT, Command

MODELS = Command(
    name="%gpt models",
    summary="the models, in memory and on disk",
    about="Lists every model of this folder: its size, what it was made from, and where it is.",
    groups=(("Options", (OUT,)),),
)


def models(gpt, given: dict, ip) -> object:
    """Shows the table; the result is `gpt.models`."""
    show(models_bundle(gpt.models))
    return gpt.models
