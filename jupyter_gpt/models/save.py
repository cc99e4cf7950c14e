"""Saving a model outside the store: a plain transformers folder, to take along, publish or load anywhere."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.adapter_card import make_portable
from jupyter_gpt.models.fetch import BESIDE, check_disk
from jupyter_gpt.models.memory import weights
from jupyter_gpt.models.models import ABOUT, CONFIGS, Model, is_model
from jupyter_gpt.runs.provenance import Provenance, digest, provenance


def save(model: Model, folder: Path, overwrite: bool = False, base: Path | None = None) -> Path:
    """Copy `model` to `folder`, whole or not at all; the folder's absolute path.

    Copied from its own folder: what is in memory may be rounded to fewer bits than what is on disk. No file names a
    place on this machine; an adapter, whose base is in the folder `base`, says in its README how both load elsewhere. A
    folder with anything but a model in it is never touched. Raises GPTError.
    """
    target = folder.expanduser().resolve()
    if Path.cwd().is_relative_to(target):
        raise GPTError(
            f"{str(folder)!r} is the folder of this notebook, or one above it: give the model a folder of its own"
        )
    if target == model.folder or model.folder in target.parents:
        raise GPTError(f"{folder} is the model's own folder: choose one outside")
    requested = {"model": model.name, "lineage": model.lineage, "from": digest(model.provenance.requested)}
    made = provenance("save", requested)
    check_target(target, model, made, overwrite)
    weights(model.folder)  # a damaged model is not worth saving
    try:
        about_base = store.read_json(base / ABOUT) if base else {}
    except ValueError as error:
        raise GPTError(f"model {model.base} is damaged: its {ABOUT} cannot be read") from error
    temporary = target.with_name(f".writing-{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        check_disk(target.parent, model.on_disk)
        shutil.copytree(model.folder, temporary, ignore=shutil.ignore_patterns(".*"))
        source = (
            model.source if model.source is None or not Path(model.source).is_absolute() else Path(model.source).name
        )
        about = {**model.about, **asdict(made), "name": model.name, "source": source}
        store.write_json(temporary / ABOUT, about)
        if model.base:
            make_portable(temporary, model, about_base)
        store.replace_folder(temporary, target)
    except OSError as error:
        raise GPTError(f"model {model.name} could not be saved in {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def check_target(target: Path, model: Model, made: Provenance, overwrite: bool) -> None:
    """Raises GPTError for a place where saving would destroy something."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise GPTError(f"{target} is not a folder: choose another place")
    if not target.exists() or not (inside := [path.name for path in target.iterdir()]):
        return
    others = [name for name in inside if not belongs(target / name)]
    if not is_model(target) or others:
        what = f" ({(others or inside)[0]})"
        raise GPTError(f"{target} has other things in it{what}: choose an empty folder, or one that is not there yet")
    try:
        about = store.read_json(target / ABOUT)
        name, old = about.get("name"), Provenance.read(about)
    except (ValueError, AttributeError):
        name, old = None, Provenance("unknown")
    if not overwrite and not made.may_replace(old):
        what = f"another model of the name {name}" if name == model.name else "another model"
        raise GPTError(f"{target} holds {what}: choose another folder, or say --overwrite")


def belongs(path: Path) -> bool:
    """Whether a file is one that a transformers folder has."""
    name = path.name
    return path.is_file() and (bool(BESIDE.fullmatch(name)) or name in (ABOUT, *CONFIGS) or ".safetensors" in name)
