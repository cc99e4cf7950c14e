"""The README.md of an adapter that was saved: what it is an adapter of, and the lines that load both elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from jupyter_gpt import store

HUB = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name

LOADED = """\
```python
from peft import PeftModel
from transformers import {auto}, AutoTokenizer

adapter = "{name}"  # this folder
tokenizer = AutoTokenizer.from_pretrained(adapter)
base = {auto}.from_pretrained("{base}"{labels}){pad}
model = PeftModel.from_pretrained(base, adapter)
```
"""


def public_name(about: dict) -> str | None:
    """`owner/name` of the hub for a model that was pulled from there, by what stands beside it; None for any other."""
    origin = about.get("origin") or ""
    return origin if HUB.fullmatch(origin) else None


def card(model, base_name: str, public: bool, source: str | None) -> str:
    """The README of the adapter `model`. `base_name` is what its base is called, `public` whether the hub knows it so,
    `source` where its weights are from.
    """
    front = {"base_model": base_name if public else None, "library_name": "peft", "license": model.licence}
    lines = ["---", *(f"{key}: {value}" for key, value in front.items() if value), "---"]
    lines += [f"# {model.name}", "", f"A LoRA adapter of `{base_name}`: {' → '.join(model.lineage)}.", ""]
    if public:
        weights = f", on its weights from {source.partition(':')[0]}" if source else ""
        lines.append(f"The base is on the Hugging Face hub. This adapter was trained beside it{weights}.")
    else:
        lines.append(
            f"`{base_name}` is not on the Hugging Face hub, so it has to travel with this folder: "
            f"`%gpt save {base_name} FOLDER` of jupyter_gpt writes it, and its path goes in the place of its name "
            f"below. "
            f"`%gpt merge {model.name}` makes one model of both instead."
        )
    labels = f", num_labels={len(model.labels)}, id2label={dict(enumerate(model.labels))!r}" if model.labels else ""
    lines += [
        "",
        LOADED.format(
            auto="AutoModelForSequenceClassification" if model.labels else "AutoModelForCausalLM",
            name=model.name,
            base=base_name,
            labels=labels,
            pad="\nbase.config.pad_token_id = tokenizer.pad_token_id" if model.labels else "",
        ),
    ]
    return "\n".join(lines)


def make_portable(folder: Path, model, base: dict) -> None:
    """Take this machine out of the folder to which the adapter `model` was copied: its base is called as the hub calls
    it,
    or by its name here. `base` is what stands beside the base.
    """
    public = public_name(base)
    name, path = public or model.base, folder / "adapter_config.json"
    store.write_json(path, {**store.read_json(path), "base_model_name_or_path": name})
    store.write_text(folder / "README.md", card(model, name, public is not None, base.get("source")))
