"""Models: transformers causal LMs that stay in the kernel, each with a plain transformers folder on disk.

A model that was made here is registered in memory at once; one of an earlier kernel, or one that was pulled into the
cache of the user, is loaded at its first use. Where both have a name, the one made here is meant.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.models import adapters
from jupyter_gpt.models.endpoints import Endpoint, Endpoints
from jupyter_gpt.models.load import full_precision, load, quiet, resident_dtype, unload
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.worker import on_worker

ABOUT = "jupyter_gpt.json"  # beside the transformers files: who made it, from what
REWARD_LABEL = "reward"  # the one label of a reward model
CONFIGS = ("config.json", adapters.CONFIG)  # a folder with one of them is a model


@dataclass(repr=False)
class Model:
    """A causal LM with its tokenizer. `module` and `tokenizer` are None while it is only on disk.

    An adapter names its `base`, and `trained` of its `parameters` are its own; `base_mark` tells the weights of the
    base that it belongs to. A model with a head of scores instead of words has `labels`.
    """

    name: str
    folder: Path
    kind: str
    provenance: Provenance
    lineage: list[str]
    parameters: int
    step: int = 0
    module: object = None
    tokenizer: object = None
    licence: str | None = None
    source: str | None = None
    base: str | None = None
    trained: int = 0
    labels: list[str] | None = None
    base_mark: str | None = None

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
        return str(self.module.dtype).removeprefix("torch.") if self.resident else None

    @property
    def has_chat(self) -> bool:
        """Whether it has a chat template: an assistant. A base model has none, and completes documents."""
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
        """Bytes its weights take in memory now; tied ones count once, and those of an adapter's base not at all."""
        if not self.resident:
            return 0
        if self.base:
            return adapters.own_bytes(self.module)
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())

    @property
    def on_disk(self) -> int:
        """Bytes its folder takes on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def __repr__(self) -> str:
        return f"<model {self.name}: {self.parameters:,} parameters, {' → '.join(self.lineage)}>"

    def predict(self, texts, probabilities: bool = False):
        """What a classifier says of a text or several: labels, or their probabilities. GPTError when it is none."""
        from jupyter_gpt.models.scoring import predict

        return predict(self, texts, probabilities)

    def score(self, prompt: str, completion: str, finished: bool = True) -> float:
        """What a reward model says of a completion, in units of its own; `finished` is False of one that was cut at its
        token limit. Raises GPTError when this is none.
        """
        from jupyter_gpt.models.scoring import score

        return score(self, prompt, completion, finished)

    @property
    def about(self) -> dict:
        """What stands in `jupyter_gpt.json`."""
        return {
            **asdict(self.provenance),
            "kind": self.kind,
            "lineage": self.lineage,
            "parameters": self.parameters,
            "step": self.step,
            "licence": self.licence,
            "source": self.source,
            "base": self.base,
            "trained": self.trained,
            "labels": self.labels,
            "base_mark": self.base_mark,
        }


class Models(Mapping):
    """Every model under the store and in the user's cache.

    `before_use(name)` is called first, so that a background run can be waited for. `used` are the folders of those that
    this kernel has pulled or loaded: a listing tells them from what other notebooks left in the cache.
    """

    def __init__(self, before_use):
        self.resident: dict[Path, Model] = {}
        self.used: set[Path] = set()
        self.before_use = before_use
        self.endpoints = Endpoints()

    def folder(self, name: str) -> Path:
        """Where it is; for a name that is nowhere yet, where a model made here would be."""
        made, pulled = (store.bring_back(root / "models" / name) for root in (store.home(), store.cache()))
        return pulled if is_model(pulled) and not is_model(made) else made

    def names(self) -> list[str]:
        """Names on disk, without loading any."""
        places = [root / "models" for root in (store.home(), store.cache())]
        for place in places:
            store.bring_all_back(place)
        found = {f.parent.name for place in places for file in CONFIGS for f in place.glob(f"*/{file}")}
        return sorted(name for name in found if name[0] != ".")

    def unused(self) -> list[str]:
        """Names in the user's cache that this kernel has not touched."""
        cached = store.cache() / "models"
        return [n for n in self.names() if (f := self.folder(n)).parent == cached and f not in self.used]

    def about(self, name: str) -> Model | Endpoint:
        """The model as it stands, loaded or not; or the endpoint of that name."""
        folder = self.folder(store.check_name(name))
        if folder in self.resident:
            return self.resident[folder]
        if not is_model(folder):
            if name in self.endpoints:
                return self.endpoints[name]
            raise GPTError(f"there is no model {name}{nearest(name, self)}{pullable(name, self)}")
        try:
            about = store.read_json(
                folder / ABOUT,
                kind=str,
                lineage=list,
                parameters=int,
                step=int,
                licence=str | None,
                source=str | None,
                base=str | None,
                trained=int,
                labels=list | None,
                base_mark=str | None,
            )
            if not all(isinstance(name, str) for key in ("lineage", "labels") for name in about.get(key) or ()):
                raise ValueError("a name is not a text")
        except ValueError as error:
            raise GPTError(f"model {name} is damaged: its {ABOUT} cannot be read") from error
        return Model(
            name,
            folder,
            about.get("kind", "unknown"),
            Provenance.read(about),
            about.get("lineage", [name]),
            about.get("parameters", 0),
            about.get("step", 0),
            licence=about.get("licence"),
            source=about.get("source"),
            base=about.get("base"),
            trained=about.get("trained", 0),
            labels=about.get("labels"),
            base_mark=about.get("base_mark"),
        )

    def __getitem__(self, name: str) -> Model | Endpoint:
        """The model, in memory. Waits for a background run that is making it."""
        self.before_use(name)
        model = self.about(name)
        ready = model.resident or model.kind == "endpoint"
        return model if ready else on_worker("torch", lambda: self.bring(name))

    def bring(self, name: str, dtype: str | None = None, device: str | None = None) -> Model:
        """The model, in memory in this form; runs on the worker, where nothing else can be loading it."""
        model = self.about(name)
        if not model.resident:
            if model.base:
                adapters.load(model, self.bring(self.base_of(model), dtype, device))
            else:
                load(model, dtype, device, self.others(model))
            self.resident[model.folder] = model
            self.used.add(model.folder)
        return model

    def base_of(self, model: Model) -> str:
        """The name of an adapter's base. Raises GPTError when that is not here."""
        if model.base not in self:
            raise GPTError(f"{model.name} is an adapter of {model.base}, which is not here{pullable(model.base)}")
        return model.base

    def full_precision(self, model: Model):
        """The module of a model in memory with fp32 weights, those of its base too: its own where they are, or else
        read
        from disk again. What is trained in full begins with them, not with what they are rounded to in memory.
        """
        if not model.base:
            return full_precision(model)
        base = self[self.base_of(model)]
        adapters.check_base(model, base)
        weights = full_precision(base)
        return model.module if weights is base.module else adapters.around(weights, model, model.tokenizer)

    def to_train(self, model: Model, whole: bool, dtype: str):
        """The module that a training of a model in memory begins with, its activations in `dtype` (or "auto"): fp32
        weights
        where all are trained, or where transformers' own forward is to compute in fp32, for it computes in what they
        are in.
        """
        import torch

        from jupyter_gpt.nn.devices import resolved
        from jupyter_gpt.nn.modules import is_known_architecture

        own = not is_known_architecture(model.module.get_base_model() if model.base else model.module)
        up = own and resolved(dtype, model.module) == "float32" and model.module.dtype != torch.float32
        return self.full_precision(model) if whole or up else model.module

    def sharing(self, model: Model) -> list[Model]:
        """The adapters in memory that share the tensors of `model`."""
        return [m for m in self.resident.values() if m.base and self.folder(m.base) == model.folder]

    def drop(self, model: Model) -> bool:
        """Take a model and the models that hold its tensors out of memory; False when something else holds them
        still.
        """
        gone = [*self.sharing(model), model]
        for one in gone:
            self.resident.pop(one.folder, None)
        return unload(gone)

    def others(self, model: Model) -> list[str]:
        """Names of further models in memory, largest first."""
        others = [other for other in self.resident.values() if other is not model]
        return [other.name for other in sorted(others, key=lambda other: -other.memory)]

    def load(self, name: str, dtype: str | None = None, device: str | None = None) -> Model:
        """Bring a model into memory as said, anew if it is there in another form."""
        self.before_use(name)
        if self.about(name).kind == "endpoint":
            raise GPTError(f"{name} is an endpoint: its weights are on its server, and there is nothing to load")

        def again() -> Model:
            model = self.about(name)
            model = self.about(self.base_of(model)) if model.base else model
            there = str(model.module.device) if model.resident and ":" in (device or "") else model.device
            if model.resident and (dtype not in (None, model.dtype) or device not in (None, there)):
                self.drop(model)
            return self.bring(name, dtype, device)

        return on_worker("torch", again)

    def unload(self, name: str) -> tuple[int, bool]:
        """Take a model out of memory; it stays on disk. How many bytes it had, and whether they were given back.

        They are not while a variable of the notebook, or a run, still holds its tensors. The adapters that share them
        go with their base.
        """
        model = self.about(name)
        if not model.resident:
            return 0, True
        size = sum(one.memory for one in (model, *self.sharing(model)))
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
        """Save a model whole, put it in the place of an older one of its name, and keep it in memory.

        `licence` is that of the weights it was made from, if it was made from any. A peft model names its `base`, a
        full model of this store, and only the adapter is written; a model with a head has `labels`. Raises GPTError
        when it cannot be written; the older one then still stands.
        """
        folder = store.home() / "models" / name
        temporary = folder.with_name(f".writing-{name}.{os.getpid()}")
        parameters = sum(p.numel() for p in module.parameters())
        made = provenance or Provenance(kind)
        model = Model(name, folder, kind, made, lineage, parameters, step, module, tokenizer, licence, labels=labels)
        if adapters.is_adapter(module):
            under = self.about(base)
            model.base, model.base_mark, model.trained = (
                base,
                adapters.mark(under.folder),
                adapters.own_parameters(module),
            )
        store.sweep(folder.parent)
        try:
            with quiet():
                adapters.write(module, temporary, under.folder) if model.base else module.save_pretrained(temporary)
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
        if not model.base:  # the other tensors of an adapter are its base's, and stay in its format
            module.to(resident_dtype(module.device.type))
        module.eval()
        old = self.resident.get(folder)
        if old is not None and old.module is not module:
            on_worker("torch", lambda: self.drop(old))
        self.resident[folder] = model
        if model.base and not self.shares(model):  # trained on a base in few bits, or in more: used as every other is
            self.unload(name)
        return model

    def shares(self, model: Model) -> bool:
        """Whether an adapter in memory lies on the tensors of its base in memory."""
        base = self.resident.get(self.folder(model.base))
        own = {id(p) for p in model.module.parameters()}
        return base is not None and any(id(p) in own for p in base.module.parameters())


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model, or the adapter of one."""
    return any((folder / config).exists() for config in CONFIGS)


def pullable(name: str, here: Container[str] = ()) -> str:
    """A hint for a name that is not here but stands in the catalogue, or nearly does."""
    from jupyter_gpt.models.catalogue import find, names

    close = [name] if find(name) else get_close_matches(name.lower(), names(), 1, 0.75)
    return f": %gpt pull {close[0]} brings it" if close and close[0] not in here else ""
