"""Provenance: what made the thing that has a name, and so who may make it anew without saying `--overwrite`.

The cell that made it may, whatever its options are now; and so may the same stage with the same options on the same
data, wherever it runs: that is Run All. Anything else would replace work in silence. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_gpt.errors import GPTError

CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # as nbformat has it; what VS Code sends names a place, and places move
SHORT = 60  # characters of an option that are kept as they are; of a longer one a digest
DIGEST = "sha256:"


def running_cell() -> str | None:
    """The id of the cell that is running. `%load_ext` puts a function in this place that asks the notebook."""
    return None


@dataclass(frozen=True)
class Provenance:
    """What made something.

    kind: the stage (pretrain, sft, …).  cell_id: the cell of the notebook, None where the front end names none
    (nbclient, a script).  requested: the options and the data as they were given, not as they were resolved:
    measured minutes and a number format that the machine chose are not in it. None where nothing is known.
    """

    kind: str
    cell_id: str | None = None
    requested: dict | None = None

    @classmethod
    def read(cls, values: Mapping) -> Provenance:
        """What a file on disk says."""
        requested = values.get("requested")
        known = requested if isinstance(requested, dict) else None
        return cls(values.get("kind", "unknown"), values.get("cell_id"), known)

    def may_replace(self, old: Provenance) -> bool:
        """Whether this is the same cell as `old`, or asks for the same."""
        same_cell = self.cell_id is not None and self.cell_id == old.cell_id
        return same_cell or (self.requested is not None and (self.kind, self.requested) == (old.kind, old.requested))


def provenance(
    kind: str, requested: Mapping, variables: Mapping | None = None, sources: Iterable[str] = ()
) -> Provenance:
    """The provenance of what is about to be made.

    `requested` are options by name; those that are None were not given. Of `sources` those named `$x` are known by the
    content of the variable `x`.
    """
    found = {name: plain(value) for name, value in requested.items() if value is not None}
    variables = variables or {}
    for source in dict.fromkeys(sources):
        if source.startswith("$") and source[1:] in variables:
            found[source] = DIGEST + digest(variables[source[1:]])
    return Provenance(kind, running_cell(), found)


def check(name: str, old: Provenance, new: Provenance, overwrite: bool, how: str = "choose another name") -> None:
    """Raises GPTError, which says what made `name`, where `new` may not replace it; `how` is the way around it."""
    if not overwrite and not new.may_replace(old):
        raise GPTError(f"{name} was made by {difference(old, new)}: {how}, or use --overwrite")


def difference(old: Provenance, new: Provenance) -> str:
    """What made the old one, and in what the new one differs."""
    if old.kind != new.kind:
        return old.kind
    made = f"{old.kind} in another cell" if old.cell_id and new.cell_id else old.kind
    if old.requested is None or new.requested is None:
        return f"{made}, with options that were not recorded"
    for key in [*new.requested, *old.requested]:
        before, now = (each.get(key) for each in (old.requested, new.requested))
        if before != now:
            option = key.replace("_", " ")
            if any(isinstance(value, str) and value.startswith(DIGEST) for value in (before, now)):
                return f"{made} with other {option}"
            if before is None:
                return f"{made} without {option}"
            return f"{made} with {option} {shown(before)}" + ("" if now is None else f", not {shown(now)}")
    return made


def shown(value: object) -> str:
    """A recorded option, as a message shows it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain(value: object) -> object:
    """A value as JSON keeps it, or a digest of one that is long or is no JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value) if isinstance(value, Path) else DIGEST + digest(value)
    return json.loads(text) if len(text) <= SHORT else DIGEST + digest(value)


def digest(value: object) -> str:
    """What tells the content of a value: texts, numbers, rows, tables; of a function its source.

    Of anything else, and of what can be read only once, it is the type alone.
    """
    found = hashlib.sha256()
    for part in parts(value):
        found.update(part.encode(errors="surrogatepass") + b"\0")
    return found.hexdigest()[:16]


def parts(value: Any) -> Iterator[Any]:
    """The content of a value in pieces."""
    if isinstance(value, str | bytes | int | float | None):
        yield repr(value)
    elif isinstance(value, Mapping):
        yield "{"
        for key, item in value.items():
            yield from (*parts(key), *parts(item))
        yield "}"
    elif hasattr(value, "tolist"):  # an array, a tensor, a Series
        yield from parts(value.tolist())
    elif isinstance(value, set | frozenset):
        yield from sorted(map(digest, value))
    elif inspect.isroutine(value) or isinstance(value, type):
        try:
            yield inspect.getsource(value)
        except (OSError, TypeError):  # built in, or typed where no source is kept
            yield str(getattr(value, "__qualname__", type(value).__name__))
    elif hasattr(value, "columns") and hasattr(value, "iloc"):  # a DataFrame
        for name in value.columns:
            yield from (*parts(name), *parts(value[name].tolist()))
    elif hasattr(value, "__len__") and isinstance(value, Iterable) and iter(value) is not value:
        yield "["
        for item in value:
            yield from parts(item)
        yield "]"
    else:
        yield type(value).__qualname__


def cell_of(metadata: Mapping) -> str | None:
    """The cell of an execute request, as JupyterLab names it in the metadata; None if it has no lasting name.

    A copy of a notebook has the ids of the original: where the server tells which notebook the kernel is of, it is told
    apart.
    """
    found = metadata.get("cellId")
    if not isinstance(found, str) or not CELL_ID.fullmatch(found):
        return None
    notebook = os.environ.get("JPY_SESSION_NAME")
    return f"{found}@{digest(Path(notebook).name)[:8]}" if notebook else found
