"""Marks of what a run learns from, a hash each under a name: by them a resumed run tells what has changed since it
began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import adapters


def of_model(session, name: str) -> dict[str, str]:
    """The mark of a model's weights; of an adapter's, that of its base too."""
    model = session.models.about(name)
    base = of_model(session, session.models.base_of(model)) if model.base else {}
    return {f"model {name}": adapters.mark(model.folder), **base}


def of_rankings(session, name: str) -> dict[str, str]:
    """The mark of a file of rankings."""
    return {f"rankings {name}": hashlib.sha256(session.rankings[name].path.read_bytes()).hexdigest()[:32]}


def check(run, before: Mapping[str, str] | None, now: Mapping[str, str]) -> None:
    """Raises GPTError for what is not as it was. What was not marked, by an earlier version, is taken as it is."""
    for what, mark in now.items():
        if (before or {}).get(what, mark) != mark:
            raise GPTError(f"{what}: changed since {run.name} began, so it cannot be resumed; run its cell again")
