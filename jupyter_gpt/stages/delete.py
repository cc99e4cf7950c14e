"""`%gpt delete` and `%gpt rename`: models, runs, rankings and indexes by their name.

A run and the model that it trained have one name and are deleted and renamed together. What else has the same name is
left alone, and `--kind` says which of them is meant.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.models import adapters
from jupyter_gpt.models.models import ABOUT, FIELDS
from jupyter_gpt.options import option
from jupyter_gpt.runs.run import ACTIVE, parked
from jupyter_gpt.stages.stage import Bound

Kind = Literal["model", "run", "rankings", "index"]
NAME = "a model, run, rankings or index"
KIND = "what is meant, where several things have this name; a model and its run go together"


class Delete(Bound):
    """delete a model and its run, rankings or an index

    Deletes the files and frees the memory; this cannot be undone. A model that was pulled is deleted from the user's
    cache, for all notebooks. Refused are a run that is training, what it is trained from, and the base of an adapter.
    """

    magic: ClassVar[str] = "%gpt delete"
    examples: ClassVar[tuple[str, ...]] = ("%gpt delete storyteller", "%gpt delete docs --kind index")

    name: str = option(..., NAME, place=True, complete="everything")
    kind: list[Kind] | None = option(None, KIND)


class Rename(Bound):
    """rename a model and its run, rankings or an index

    Adapters of a renamed model go on working, and the lineage of other models says the new name. The cell that made it
    makes the old name anew when it runs again.
    """

    magic: ClassVar[str] = "%gpt rename"
    examples: ClassVar[tuple[str, ...]] = ("%gpt rename storyteller storyteller-small",)

    name: str = option(..., NAME, place=True, complete="everything")
    new: str = option(..., "its new name", place=True)
    kind: list[Kind] | None = option(None, KIND)


def delete(session, options: Delete) -> dict[str, int]:
    """The bytes on disk that each deleted thing took, by its kind.

    Raises GPTError for a name that nothing or too much has, for a run that is training or that another trains from,
    and for a model with adapters.
    """
    name = options.name
    with exclusively(session, name, options.kind) as found:
        if "model" in found and (users := adapters_of(session, name)):
            raise GPTError(
                f"{name} is the base of {' and '.join(users)}: delete them first, or make one model of both with "
                f"%gpt merge {users[0]}"
            )
        forget(session, name, found)
        freed = {}
        for kind, paths in found.items():
            freed[kind] = sum(size(path) for path in paths)
            for path in [*paths, *leftovers(paths)]:
                remove(path)
        return freed


def rename(session, options: Rename) -> list[str]:
    """The kinds of what was renamed. Raises GPTError as `delete` does, and for a new name that is taken."""
    name, new = options.name, store.check_name(options.new)
    with exclusively(session, name, options.kind) as found:
        taken = [kind for kind in found if kind in holders(session, new)]
        if taken:
            raise GPTError(f"there is already a {taken[0]} named {new}: choose another name, or %gpt delete {new}")
        if "model" in found and new in session.models.endpoints:
            raise GPTError(f"there is already an endpoint named {new}: choose another name")
        users = adapters_of(session, name) if "model" in found else []
        forget(session, name, found)
        for paths in found.values():
            for path in leftovers(paths):
                remove(path)
            for path in paths:
                os.replace(path, path.with_name(new + path.name.removeprefix(name)))
        if "model" in found:
            update_references(session, name, new, users)
        return list(found)


def holders(session, name: str) -> dict[str, list[Path]]:
    """What has this name: the files or folders of each kind of thing."""
    found, rankings = {}, session.rankings.named(name)
    if name in session.models and name not in session.models.endpoints:
        found["model"] = [session.models.folder(name)]
    if name in session.runs:
        found["run"] = [session.runs.folder(name)]
    if name in session.rankings.names():
        found["rankings"] = [path for path in (rankings.path, rankings.questions_path) if path.exists()]
    if name in session.indexes:
        found["index"] = [session.indexes.folder(name)]
    return found


def names(session) -> set[str]:
    """Every name that can be deleted."""
    return {*session.models.names(), *session.runs.names(), *session.rankings.names(), *session.indexes}


@contextmanager
def exclusively(session, name: str, kinds: list[Kind] | None) -> Iterator[dict[str, list[Path]]]:
    """What has this name, locked against other kernels. Raises GPTError where that is nothing, unclear or in use."""
    found = holders(session, store.check_name(name))
    if not found:
        if name in session.models.endpoints:
            raise GPTError(f"{name} is an endpoint: %gpt config endpoint {name} --remove")
        raise GPTError(f"there is no model, run, rankings or index named {name}{nearest(name, names(session))}")
    if kinds:
        if missing := [kind for kind in kinds if kind not in found]:
            raise GPTError(f"there is no {missing[0]} named {name}: {name} is {' and '.join(found)}")
        found = {kind: paths for kind, paths in found.items() if kind in kinds}
    elif len(found.keys() - {"run"}) > 1:
        raise GPTError(f"{name} is the name of {' and '.join(found)}: say which with --kind")
    if name in session.runs.names() and (run := readable(session, name)) is not None and run.status in ACTIVE:
        raise GPTError(f"run {name} is {run.status}: %gpt stop {name} first")
    for run in session.runs.known.values():
        if run.alive and name in used_by(run):
            raise GPTError(f"run {run.name} is {run.status} and uses {name}: wait for it, or %gpt stop {run.name}")
    folders = [paths[0] for kind, paths in found.items() if kind != "rankings"]
    locked = []
    try:
        for folder in folders:
            if store.lock(folder, f"{name} is in use"):
                locked.append(folder)
        with store.writing(name):
            yield found
    finally:
        for folder in locked:
            store.unlock(folder)


def readable(session, name: str) -> Any:
    """The run; None where it is damaged: then nobody trains it."""
    try:
        return session.runs[name]
    except GPTError:
        return None


def used_by(run) -> set[str]:
    """The names that a run's recipe mentions: its base, policy, reward models and rankings."""
    values = [value if isinstance(value, list | tuple) else [value] for value in run.recipe.values()]
    return {each for value in values for each in value if isinstance(each, str)}


def adapters_of(session, name: str) -> list[str]:
    """The adapters whose base is this model."""
    bases = {each: about_of(session.models.folder(each)).get("base") for each in session.models.names()}
    return [each for each, base in bases.items() if base == name]


def about_of(folder: Path) -> dict:
    """A model's `jupyter_gpt.json`; {} where it is damaged."""
    try:
        return store.read_json(folder / ABOUT, **FIELDS)
    except ValueError:
        return {}


def forget(session, name: str, found: dict[str, list[Path]]) -> None:
    """Take what has this name out of the kernel's memory."""
    if "model" in found:
        if found["model"][0] in session.models.resident:
            session.models.unload(name)
        session.prompting.history.pop(name, None)
        session.prompting.used.pop(name, None)
    if "run" in found:
        session.runs.known.pop(found["run"][0], None)
    if "index" in found:
        session.indexes.open.pop(found["index"][0], None)


def leftovers(paths: list[Path]) -> list[Path]:
    """Older and unfinished versions beside a folder, one of which would take its place when it is gone."""
    return [each for path in paths for each in (*parked(path), path.with_name(f".new-{path.name}")) if each.exists()]


def size(path: Path) -> int:
    """Bytes of a file or folder; of a link its own."""
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def remove(path: Path) -> None:
    """Remove a file or folder, of a link only the link; it has another name before its content goes, so that none is
    seen without a part."""
    gone = path.with_name(f".deleted-{path.name}.{os.getpid()}")
    os.replace(path, gone)
    shutil.rmtree(gone) if gone.is_dir() and not gone.is_symlink() else gone.unlink()


def update_references(session, name: str, new: str, users: list[str]) -> None:
    """Write a model's new name into its lineage and its descendants', and into its adapters."""
    base_folder = session.models.folder(new)
    for each in session.models.names():
        folder = session.models.folder(each)
        about = about_of(folder)
        lineage = about.get("lineage", ())
        renamed = [new + entry[len(name) :] if entry.partition(" ")[0] == name else entry for entry in lineage]
        base = new if each in users else about.get("base")
        if about and (renamed != list(lineage) or base != about.get("base")):
            store.write_json(folder / ABOUT, {**about, "lineage": renamed, "base": base})
        if each in users:
            with suppress(ValueError):  # a damaged adapter: loading it will say so
                config = {**store.read_json(folder / adapters.CONFIG), "base_model_name_or_path": str(base_folder)}
                store.write_json(folder / adapters.CONFIG, config)
        if folder in session.models.resident:
            model = session.models.resident[folder]
            model.lineage, model.base = renamed, base
