"""Models: transformers causal LMs that stay in the kernel, each with a plain transformers folder on disk.

A model trained here stays in memory; one of an earlier kernel, or one pulled into the user's cache, is loaded at its
first use. Where a name is in both places, the one trained here is meant.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.models import adapters
from jupyter_gpt.models.endpoints import Endpoint, Endpoints
from jupyter_gpt.models.folder import quiet
from jupyter_gpt.models.load import QUANTIZED, full_precision, load, resident_dtype, unload
from jupyter_gpt.report.report import Report, ShownAsTable
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.worker import on_worker

if TYPE_CHECKING:
    from pandas import DataFrame
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ABOUT = "jupyter_gpt.json"  # beside the transformers files: the provenance and these fields
FIELDS = {
    "kind": str,
    "lineage": list,
    "parameters": int,
    "step": int,
    "licence": str | None,
    "source": str | None,
    "base": str | None,
    "trained": int,
    "labels": list | None,
    "base_mark": str | None,
}
REWARD_LABEL = "reward"  # the one label of a reward model
CONFIGS = ("config.json", adapters.CONFIG)  # a folder with one of them is a model


def nobody_told(name: str) -> None:
    """Nobody is shown which model is loaded."""


tell_loading: Callable[[str], None] = nobody_told  # before a model is loaded; a running cell shows it


@dataclass(repr=False)
class Model:
    """A causal LM with its tokenizer; `module` and `tokenizer` are None while it is only on disk.

    An adapter has a `base`: `trained` of its `parameters` are its own, `base_mark` is a hash of the base's weights. A
    classifier or reward model has `labels`.
    """

    name: str
    folder: Path
    kind: str
    provenance: Provenance
    lineage: list[str]
    parameters: int
    step: int = 0
    module: PreTrainedModel = None  # pyright: ignore
    tokenizer: PreTrainedTokenizerFast = None  # pyright: ignore
    licence: str | None = None
    source: str | None = None
    base: str | None = None
    trained: int = 0
    labels: list[str] | None = None
    base_mark: str | None = None
    stamp: Any = None  # of its files, when it was loaded or written

    @property
    def resident(self) -> bool:
        """Whether it is in memory."""
        return self.module is not None

    @property
    def is_reward_model(self) -> bool:
        return self.labels == [REWARD_LABEL]

    @property
    def device(self) -> str | None:
        return self.module.device.type if self.resident else None

    @property
    def dtype(self) -> str | None:
        if not self.resident:
            return None
        from jupyter_gpt.nn.quantized import format_of

        return format_of(self.module) or str(self.module.dtype).removeprefix("torch.")

    @property
    def notes(self) -> list[str]:
        """What there is to know of its weights in memory, a line each; nothing unless they have 8 or 4 bits."""
        if self.dtype not in QUANTIZED or self.base:
            return []
        from jupyter_gpt.models.quantize import notes

        return notes(self.module, self.dtype)

    @property
    def has_chat(self) -> bool:
        """Whether it has a chat template: an assistant. A base model has none and completes documents."""
        if self.tokenizer is not None:
            return bool(self.tokenizer.chat_template)
        if any((self.folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
            return True
        try:
            return bool(store.read_json(self.folder / "tokenizer_config.json").get("chat_template"))
        except (ValueError, AttributeError):  # a damaged file: loading the model will say so
            return False

    @property
    def memory(self) -> int:
        """Bytes of its weights in memory. Tied ones count once, those of an adapter's base not at all."""
        if not self.resident:
            return 0
        if self.base:
            return sum(tensor.nbytes for tensor in adapters.own_tensors(self.module))
        from jupyter_gpt.nn.quantized import bytes_of

        tensors = [*self.module.parameters(), *self.module.buffers()]
        plain = sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())
        return plain + bytes_of(self.module)

    @property
    def on_disk(self) -> int:
        """Bytes."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def __repr__(self) -> str:
        return f"<model {self.name}: {self.parameters:,} parameters, {' → '.join(self.lineage)}>"

    def classify(self, texts: str | Iterable[str]) -> DataFrame:
        """A classifier's label of each text, and the probability of every label, a row per text. Raises GPTError for
        another kind of model."""
        from jupyter_gpt.models.scoring import classify

        return classify(self, texts)

    def predict(self, texts):
        """A classifier's label of a text, or of each in a list. Raises GPTError for another kind of model."""
        found = self.classify(texts)["label"].tolist()
        return found[0] if isinstance(texts, str) else found

    def losses(self, texts):
        """A language model's loss on a text, or on each in a list, in nats per token. Raises GPTError."""
        from jupyter_gpt.models.losses import losses

        return losses(self, texts)

    def score(self, prompt: str | list[dict], completion: str | None = None, finished: bool = True) -> float:
        """A reward model's score of a completion, after a text or a list of messages; `finished` is False if it was cut
        at its token limit. Raises GPTError for another kind of model."""
        from jupyter_gpt.models.scoring import score

        return score(self, prompt, completion, finished)

    @property
    def about(self) -> dict:
        """The content of `jupyter_gpt.json`."""
        return {**asdict(self.provenance), **{name: getattr(self, name) for name in FIELDS}}


class Models(ShownAsTable, Mapping):
    """Every model in the store and in the user's cache, and every endpoint, by name.

    `before_use(name)` waits for a background run that trains it. `used` are the folders that this kernel has pulled or
    loaded: a listing tells them from what other notebooks left in the cache.
    """

    def __init__(self, before_use):
        self.resident: dict[Path, Model] = {}
        self.used: set[Path] = set()
        self.before_use = before_use
        self.endpoints = Endpoints()

    @property
    def report(self) -> Report:
        from jupyter_gpt.models.listing import models_report

        return models_report(self)

    def folder(self, name: str) -> Path:
        """Where it is; for a new name, where a model trained here would be."""
        own, pulled = (store.restore(root / "models" / name) for root in (store.home(), store.cache()))
        return pulled if is_model(pulled) and not is_model(own) else own

    def names(self) -> list[str]:
        """The names on disk."""
        roots = [root / "models" for root in (store.home(), store.cache())]
        for root in roots:
            store.restore_all(root)
        names = {file.parent.name for root in roots for config in CONFIGS for file in root.glob(f"*/{config}")}
        return sorted(name for name in names if name[0] != ".")

    def unused(self) -> list[str]:
        """The names in the user's cache that this kernel has not used."""
        cached = store.cache() / "models"
        return [n for n in self.names() if (f := self.folder(n)).parent == cached and f not in self.used]

    def about(self, name: str) -> Model | Endpoint:
        """The model, loaded or not; or the endpoint."""
        if isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+|.+/.*\.gguf", name):
            raise GPTError(
                f"there is no model {name:.60}: `%gpt pull {name:.60}` makes one of it, with a name of its own"
            )
        folder = self.folder(store.check_name(name))
        if folder in self.resident:
            return self.resident[folder]
        if not is_model(folder):
            if name in self.endpoints:
                return self.endpoints[name]
            raise GPTError(f"there is no model {name}{nearest(name, self)}{pullable(name, self)}")
        try:
            about = store.read_json(folder / ABOUT, **FIELDS)
            if not all(isinstance(item, str) for key in ("lineage", "labels") for item in about.get(key) or ()):
                raise ValueError("a name is not a string")
        except ValueError as error:
            raise GPTError(f"model {name} is damaged: its {ABOUT} cannot be read") from error
        fields = {"kind": "unknown", "lineage": [name], "parameters": 0, **{k: about[k] for k in FIELDS if k in about}}
        return Model(name, folder, provenance=Provenance.read(about), **fields)

    def __getitem__(self, name: str) -> Model:
        """The model, in memory. Waits for a background run that trains it. For the name of an endpoint it is the
        `Endpoint`, of `endpoints`, which has a type of its own."""
        self.before_use(name)
        model: Any = self.about(name)
        if model.resident and model.stamp != stamp_of(model.folder):  # another process has made it anew
            on_worker("torch", lambda: self.drop(model))
            model = self.about(name)
        if model.resident or model.kind == "endpoint":
            return model
        tell_loading(name)
        return on_worker("torch", lambda: self.bring(name))

    def bring(self, name: str, dtype: str | None = None, device: str | None = None) -> Model:
        """Load the model unless it is in memory. Runs on the worker, where nothing else can be loading it."""
        model: Any = self.about(name)
        if not model.resident:
            if model.base:
                adapters.load(model, self.bring(self.base_of(model), dtype, device))
            else:
                load(model, dtype, device, self.others(model))
            model.stamp = stamp_of(model.folder)
            self.resident[model.folder] = model
            self.used.add(model.folder)
        return model

    def base_of(self, model: Model) -> str:
        """The name of an adapter's base. Raises GPTError when that is missing."""
        if model.base is None or model.base not in self:
            raise GPTError(f"{model.name} is an adapter of {model.base}, which is not here{pullable(model.base or '')}")
        return model.base

    def full_precision(self, model: Model):
        """A module with fp32 weights, read from disk again unless those in memory are fp32: full finetuning must not
        start from weights that were rounded to 16 bits.
        """
        if not model.base:
            return full_precision(model)
        base = self[self.base_of(model)]
        adapters.check_base(model, base)
        weights = full_precision(base)
        return model.module if weights is base.module else adapters.around(weights, model, model.tokenizer)

    def to_train(self, model: Model, whole: bool, dtype: str):
        """The module that training starts from, with activations in `dtype` (or "auto"). Its weights are fp32 if the
        `whole` model is trained, if transformers' own forward is to compute in fp32, for it computes in their dtype,
        or if those in memory have 8 or 4 bits.
        """
        import torch

        from jupyter_gpt.nn.architectures import is_known_architecture
        from jupyter_gpt.nn.devices import resolved
        from jupyter_gpt.nn.modules import base_of

        known = is_known_architecture(base_of(model.module))
        upcast = not known and resolved(dtype, model.module) == "float32" and model.module.dtype != torch.float32
        quantized = model.dtype in QUANTIZED  # kernels of 8 and 4 bits have no gradient
        return self.full_precision(model) if whole or upcast or quantized else model.module

    def sharing(self, model: Model) -> list[Model]:
        """The adapters in memory that share `model`'s tensors."""
        return [m for m in self.resident.values() if m.base and self.folder(m.base) == model.folder]

    def drop(self, model: Model) -> bool:
        """Unload a model and the adapters on it; False if something else still holds their tensors."""
        models = [*self.sharing(model), model]
        for each in models:
            self.resident.pop(each.folder, None)
        return unload(models)

    def others(self, model: Model) -> list[str]:
        """The names of the other models in memory, largest first."""
        others = [other for other in self.resident.values() if other is not model]
        return [other.name for other in sorted(others, key=lambda other: -other.memory)]

    def load(self, name: str, dtype: str | None = None, device: str | None = None) -> Model:
        """Load a model in this dtype on this device, again if it is in memory in another."""
        self.before_use(name)
        if self.about(name).kind == "endpoint":
            raise GPTError(f"{name} is an endpoint: its weights are on its server, there is nothing to load")

        def reload() -> Model:
            model: Any = self.about(name)
            model = self.about(self.base_of(model)) if model.base else model
            current = str(model.module.device) if model.resident and ":" in (device or "") else model.device
            if model.resident and (dtype not in (None, model.dtype) or device not in (None, current)):
                self.drop(model)
            return self.bring(name, dtype, device)

        return on_worker("torch", reload)

    def unload(self, name: str) -> tuple[int, bool]:
        """Unload a model and the adapters on it; they stay on disk. Returns their bytes, and whether those are free:
        they are not while a variable of the notebook, or a run, still holds the tensors.
        """
        model: Any = self.about(name)
        if not model.resident:
            return 0, True
        size = sum(each.memory for each in (model, *self.sharing(model)))
        return size, on_worker("torch", lambda: self.drop(model))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or not store.NAME.fullmatch(name):
            return False
        return is_model(self.folder(name)) or name in self.endpoints

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.names(), *self.endpoints}))

    def __len__(self) -> int:
        return len({*self.names(), *self.endpoints})

    def keep(
        self,
        name: str,
        module,
        tokenizer,
        kind: str,
        provenance: Provenance | None,
        lineage: list[str],
        step: int,
        licence: str | None = None,
        base: str | None = None,
        labels: list[str] | None = None,
    ) -> Model:
        """Save a model atomically, replacing an older one of its name, and keep it in memory.

        `licence` is that of the weights it started from. Of a peft model only the adapter is written, with the name of
        its `base`. Raises GPTError when it cannot be written; the older one is then untouched.
        """
        if self.quantized(module) and not adapters.is_adapter(module):
            raise GPTError(f"model {name} cannot be written: its weights in memory are rounded to 8 or 4 bits")
        folder = store.home() / "models" / name
        temporary = folder.with_name(f".writing-{name}.{os.getpid()}")
        parameters = sum(p.numel() for p in module.parameters())
        provenance = provenance or Provenance(kind)
        model = Model(
            name, folder, kind, provenance, lineage, parameters, step, module, tokenizer, licence, labels=labels
        )
        if adapters.is_adapter(module):
            base_folder = self.about(base or "").folder
            model.base, model.base_mark = base, adapters.mark(base_folder)
            model.trained = sum(tensor.numel() for tensor in adapters.own_tensors(module))
        store.sweep(folder.parent)
        try:
            with quiet():
                adapters.write(module, temporary, base_folder) if model.base else module.save_pretrained(temporary)
                tokenizer.save_pretrained(temporary)
            store.write_json(temporary / ABOUT, model.about)
            store.replace_folder(temporary, folder)
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not isinstance(error, OSError) and not store.is_full(error):
                raise
            raise GPTError(f"model {name} could not be written: {error}; free some space and resume its run") from error
        module.requires_grad_(False)
        for parameter in module.parameters():
            parameter.grad = None
        if not model.base:  # an adapter shares its base's tensors, which keep their dtype
            module.to(resident_dtype(module.device.type))
        module.eval()
        old = self.resident.get(folder)
        if old is not None and old.module is not module:
            on_worker("torch", lambda: self.drop(old))
        model.stamp = stamp_of(folder)
        self.resident[folder] = model
        if model.base and not self.shares(model):  # trained on a quantised or fp32 copy of its base
            self.unload(name)
        return model

    def add(self, name: str, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Model:
        """Keep a causal LM of one's own, with its tokenizer: any stage then starts from it, and any prompt asks it.

        Its class is one that `AutoModelForCausalLM` knows, or was registered with it, in every kernel that loads the
        model again. One without a forward of ours is trained and asked by its own. From here on the module belongs to
        the session: its weights are in the data type of models in memory and require no gradient.

        Raises GPTError for a name that is taken and for what is no causal LM with a tokenizer of Hugging Face.
        """
        from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

        if store.check_name(name) in self:
            raise GPTError(f"there is a model {name} already: choose another name, or %gpt delete {name}")
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise GPTError(f"a model is added with a tokenizer of transformers, not {type(tokenizer).__name__}")
        config = getattr(module, "config", None)
        if not isinstance(module, PreTrainedModel) or type(config) not in AutoModelForCausalLM._model_mapping:
            raise GPTError(
                f"{type(module).__name__} is no class that AutoModelForCausalLM knows: make it a PreTrainedModel with "
                "a PretrainedConfig, whose forward returns logits, and register both (AutoConfig.register, "
                "AutoModelForCausalLM.register)"
            )
        return on_worker("torch", lambda: self.keep(name, module, tokenizer, "added", None, [f"{name} (added)"], 0))

    @staticmethod
    def quantized(module) -> bool:
        """Whether a module has weights in 8 or 4 bits."""
        from jupyter_gpt.nn.quantized import format_of

        return format_of(module) is not None

    def shares(self, model: Model) -> bool:
        """Whether an adapter shares the tensors of its base in memory."""
        base = self.resident.get(self.folder(model.base or ""))
        own = {id(p) for p in model.module.parameters()}
        return base is not None and any(id(p) in own for p in base.module.parameters())


def stamp_of(folder: Path) -> list:
    """What changes when the model in a folder is made anew."""
    return [store.stamp_of(folder / config) for config in CONFIGS]


def is_model(folder: Path) -> bool:
    """Whether a folder contains a model or an adapter."""
    return any((folder / config).exists() for config in CONFIGS)


def pullable(name: str, here: Container[str] = ()) -> str:
    """A hint for a name that is in the catalogue, or close to one that is."""
    from jupyter_gpt.models.catalogue import find, names

    close = [name] if find(name) else get_close_matches(name.lower(), names(), 1, 0.75)
    return f": %gpt pull {close[0]} downloads it" if close and close[0] not in here else ""
