"""Models: transformers causal LMs that stay in the kernel, each with a plain transformers folder on disk.

A model that was made here is registered in memory at once; one of an earlier kernel is loaded at its first use.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.session import store

ABOUT = "jupyter_gpt.json"  # beside the transformers files: who made it, from what


@dataclass(repr=False)
class Model:
    """A causal LM with its tokenizer. `module` and `tokenizer` are None while it is only on disk."""

    name: str
    folder: Path
    kind: str
    maker: str | None
    lineage: list[str]
    parameters: int
    step: int = 0
    module: object = None
    tokenizer: object = None

    @property
    def resident(self) -> bool:
        """Whether it is in memory."""
        return self.module is not None

    @property
    def device(self) -> str | None:
        return self.module.device.type if self.resident else None

    @property
    def dtype(self) -> str | None:
        return str(self.module.dtype).removeprefix("torch.") if self.resident else None

    def __repr__(self) -> str:
        return f"<model {self.name}: {self.parameters:,} parameters, {' → '.join(self.lineage)}>"

    @property
    def about(self) -> dict:
        """What stands in `jupyter_gpt.json`."""
        return {"kind": self.kind, "maker": self.maker, "lineage": self.lineage,
                "parameters": self.parameters, "step": self.step}  # fmt: skip


def resident_dtype(device: str):
    """The number format in which models wait to be used: bf16 on a GPU, fp32 on a CPU."""
    import torch

    return torch.bfloat16 if device == "cuda" else torch.float32


@contextmanager
def quiet():
    """Without the progress bars that transformers prints for files of a few megabytes."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class Models(Mapping):
    """Every model under the store. `before_use(name)` is called first, so that a background run can be waited for."""

    def __init__(self, before_use):
        self.resident: dict[Path, Model] = {}
        self.before_use = before_use

    def folder(self, name: str) -> Path:
        return store.home() / "models" / name

    def names(self) -> list[str]:
        """Names on disk, without loading any."""
        return sorted(f.parent.name for f in (store.home() / "models").glob("*/config.json") if f.parent.name[0] != ".")

    def about(self, name: str) -> Model:
        """The model as it stands, loaded or not."""
        folder = self.folder(store.check_name(name))
        if folder in self.resident:
            return self.resident[folder]
        if not (folder / "config.json").exists():
            raise GPTError(f"there is no model {name}{nearest(name, self.names())}")
        about = store.read_json(folder / ABOUT)
        return Model(
            name, folder, about.get("kind", "unknown"), about.get("maker"), about.get("lineage", [name]),
            about.get("parameters", 0), about.get("step", 0),
        )  # fmt: skip

    def __getitem__(self, name: str) -> Model:
        """The model, in memory. Waits for a background run that is making it."""
        self.before_use(name)
        model = self.about(name)
        if not model.resident:
            load(model)
            self.resident[model.folder] = model
        return model

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(store.NAME.fullmatch(name)) and (self.folder(name) / "config.json").exists()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def keep(self, name: str, module, tokenizer, kind: str, maker: str | None, lineage: list[str], step: int) -> Model:
        """Save a model whole, put it in the place of an older one of its name, and keep it in memory.

        Raises GPTError when it cannot be written; the older one then still stands.
        """
        folder = self.folder(name)
        temporary = folder.with_name(f".writing-{name}")
        parameters = sum(p.numel() for p in module.parameters())
        model = Model(name, folder, kind, maker, lineage, parameters, step, module, tokenizer)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with quiet():
                module.save_pretrained(temporary)
                tokenizer.save_pretrained(temporary)
            store.write_json(temporary / ABOUT, model.about)
            store.replace_folder(temporary, folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise GPTError(f"model {name} could not be written: {error}; free some space and resume its run") from error
        module.requires_grad_(False)
        for parameter in module.parameters():
            parameter.grad = None
        module.to(resident_dtype(module.device.type)).eval()
        self.resident[folder] = model
        return model


def load(model: Model) -> None:
    """Bring a model of the store into memory. Raises GPTError when its folder is damaged."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from jupyter_gpt.training.device import default_device

    device = default_device()
    try:
        with quiet():
            module = AutoModelForCausalLM.from_pretrained(
                model.folder, dtype=resident_dtype(device), use_safetensors=True
            )
            model.tokenizer = AutoTokenizer.from_pretrained(model.folder)
    except (OSError, ValueError, KeyError) as error:
        raise GPTError(f"model {model.name} cannot be loaded from {model.folder}: {error}") from error
    model.module = module.requires_grad_(False).to(device).eval()
    model.parameters = model.parameters or sum(p.numel() for p in module.parameters())
