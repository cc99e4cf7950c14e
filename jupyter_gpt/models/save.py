"""Saving a model outside the store: a plain transformers or peft folder, to publish or to load anywhere."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.adapters import CONFIG as ADAPTER_CONFIG
from jupyter_gpt.models.fetch import BESIDE, check_disk
from jupyter_gpt.models.model_files import weight_count
from jupyter_gpt.models.models import ABOUT, CONFIGS, Model, is_model
from jupyter_gpt.runs.provenance import Provenance, digest, provenance

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
EXAMPLE = """\
```python
from peft import PeftModel
from transformers import {auto}, AutoTokenizer

adapter = "{name}"  # this folder
tokenizer = AutoTokenizer.from_pretrained(adapter)
base = {auto}.from_pretrained("{base}"{labels}){pad}
model = PeftModel.from_pretrained(base, adapter)
```
"""


def save(model: Model, folder: Path, overwrite: bool = False, base: Path | None = None) -> Path:
    """Copy `model` to `folder` atomically; returns the absolute path.

    Copied from its folder: the weights in memory may be rounded to 16 bits. No file contains a path of this machine;
    the README of an adapter, whose base is in the folder `base`, shows how to load both elsewhere. A folder with
    anything but a model in it is never touched. Raises GPTError.
    """
    target = folder.expanduser().resolve()
    if Path.cwd().is_relative_to(target):
        raise GPTError(f"{str(folder)!r} is the notebook's folder or above it: give the model a folder of its own")
    if target == model.folder or model.folder in target.parents:
        raise GPTError(f"{folder} is the model's own folder: choose one outside")
    requested = {"model": model.name, "lineage": model.lineage, "from": digest(model.provenance.requested)}
    made = provenance("save", requested)
    weight_count(model.folder)  # raises GPTError for damaged files
    about_base = read(model.base, base / ABOUT) if base else {}
    config = read(model.name, model.folder / ADAPTER_CONFIG) if model.base else {}
    temporary = target.with_name(f".writing-{target.name}.{os.getpid()}")
    try:
        check_target(target, model, made, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        check_disk(target.parent, model.on_disk)
        shutil.copytree(model.folder, temporary, ignore=shutil.ignore_patterns(".*"))
        source = Path(model.source).name if model.source and Path(model.source).is_absolute() else model.source
        about = {**model.about, **asdict(made), "name": model.name, "source": source}
        store.write_json(temporary / ABOUT, about)
        if model.base:  # a peft folder with the path of its base: replaced by the name on the hub, or else here
            origin = about_base.get("origin") or ""
            name, on_hub = (origin, True) if HUB_NAME.fullmatch(origin) else (model.base, False)
            store.write_json(temporary / ADAPTER_CONFIG, {**config, "base_model_name_or_path": name})
            store.write_text(temporary / "README.md", model_card(model, name, on_hub, about_base.get("source")))
        store.replace_folder(temporary, target)
    except OSError as error:
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error  # of a folder: its first file
        raise GPTError(f"model {model.name} could not be saved in {folder}: {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def read(name: str | None, path: Path) -> dict:
    """A JSON file of a model. Raises GPTError if it is damaged."""
    try:
        return store.read_json(path)
    except ValueError as error:
        raise GPTError(f"model {name} is damaged: its {path.name} cannot be read") from error


def check_target(target: Path, model: Model, made: Provenance, overwrite: bool) -> None:
    """Raises GPTError where saving would destroy something."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise GPTError(f"{target} is not a folder: choose another one")
    if not target.exists() or not (files := list(target.iterdir())):
        return
    others = [path for path in files if not is_model_file(path)]
    if not is_model(target) or others:
        raise GPTError(f"{target} has other files in it ({(others or files)[0].name}): choose an empty or a new folder")
    try:
        about = store.read_json(target / ABOUT)
        name, old = about.get("name"), Provenance.read(about)
    except (ValueError, AttributeError):
        name, old = None, Provenance("unknown")
    if not overwrite and not made.may_replace(old):
        what = f"another model named {name}" if name == model.name else "another model"
        raise GPTError(f"{target} contains {what}: choose another folder, or use --overwrite")


def is_model_file(path: Path) -> bool:
    """Whether a file is one of those that a transformers folder has."""
    known = BESIDE.fullmatch(path.name) or path.name in (ABOUT, *CONFIGS) or ".safetensors" in path.name
    return path.is_file() and bool(known)


def model_card(model: Model, base: str, on_hub: bool, source: str | None) -> str:
    """The README of an adapter: its base's name, whether that is one of the hub, where its weights are from."""
    front = {"base_model": base if on_hub else None, "library_name": "peft", "license": model.licence}
    lines = ["---", *(f"{key}: {value}" for key, value in front.items() if value), "---"]
    lines += [f"# {model.name}", "", f"A LoRA adapter of `{base}`: {' → '.join(model.lineage)}.", ""]
    if on_hub:
        weights = f", on its weights from {source.partition(':')[0]}" if source else ""
        lines.append(f"The base is on the Hugging Face hub. This adapter was trained beside it{weights}.")
    else:
        lines.append(
            f"`{base}` is not on the Hugging Face hub, so it has to travel with this folder: "
            f"`%gpt save {base} FOLDER` of jupyter_gpt writes it; put its path in the place of its name below. "
            f"`%gpt merge {model.name}` makes one model of both instead."
        )
    labels = f", num_labels={len(model.labels)}, id2label={dict(enumerate(model.labels))!r}" if model.labels else ""
    auto = "AutoModelForSequenceClassification" if model.labels else "AutoModelForCausalLM"
    pad = "\nbase.config.pad_token_id = tokenizer.pad_token_id" if model.labels else ""
    return "\n".join([*lines, "", EXAMPLE.format(auto=auto, name=model.name, base=base, labels=labels, pad=pad)])
