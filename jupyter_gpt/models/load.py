"""Loading a model into memory and unloading it.

Both run on the worker: transformers sets torch's default dtype while it builds a model, and a training step in another
thread would see it.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Sequence
from typing import Any

from jupyter_gpt.errors import GPTError, is_out_of_memory
from jupyter_gpt.imports import without_garbage_collection
from jupyter_gpt.models.folder import SAFE, from_folder, quiet
from jupyter_gpt.models.model_files import check_files, check_settings, weight_count
from jupyter_gpt.nn import devices
from jupyter_gpt.nn.sizes import amount

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTIZED = ("int8", "int4")


def resident_dtype(device: str):
    """The dtype of models in memory: fp32 on a CPU, bf16 on a GPU, fp16 on a GPU without bf16."""
    import torch

    if device == "mps":
        return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16
    if device != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def check_device(device: str) -> str:
    """`device` if torch can compute on it here. Raises GPTError otherwise."""
    import torch

    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise GPTError(f"{device} is not a device: cpu, cuda, cuda:0 for the first of several, or mps")
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind, _, number = device.partition(":")
    if not here[kind]:
        raise GPTError(f"there is no {kind} on this machine: {' or '.join(k for k in here if here[k])}")
    if number and int(number) >= torch.cuda.device_count():
        raise GPTError(f"there is no {device}: this machine has {torch.cuda.device_count()} (counted from 0)")
    return device


@without_garbage_collection()
def load(model, dtype: str | None = None, device: str | None = None, others: Sequence[str] = ()) -> None:
    """Load a model of the store, in `dtype` on `device` or in this machine's defaults.

    `others` are models that could be unloaded, for the message when it does not fit. Raises GPTError for weights that
    are damaged, missing or pickled, for a model that needs code of its own, and for too little memory; memory is then
    as before.
    """
    device = check_device(device or devices.default_device())
    dtype = dtype or str(resident_dtype(device.partition(":")[0])).removeprefix("torch.")
    if dtype not in (*BYTES, *QUANTIZED):
        raise GPTError(f"{dtype} is not a dtype for a model: {', '.join((*BYTES, *QUANTIZED))}")
    if dtype in QUANTIZED and device != "cpu":
        raise GPTError(f"--dtype {dtype} is for CPUs: on {device} load it in bfloat16, or add --device cpu")
    check_weights(model)
    count = weight_count(model.folder)
    check_room(model, count, dtype, device, others)
    try:
        module, missing = read(model, dtype)
        with quiet():
            tokenizer = tokenizer_of(model)
        if missing:  # transformers would initialise them at random
            raise GPTError(f"model {model.name} is damaged: {len(missing)} of its weights are missing ({missing[0]} …)")
        unscaled(module).requires_grad_(False).to(device).eval()
    except Exception as error:  # damaged files raise anything
        module = None
        failed = too_large(model, count, dtype, device, others) if is_out_of_memory(error) else None
        reason = first_line(error)
        error.__traceback__ = None  # its frames hold the weights loaded so far
        devices.give_back(device.partition(":")[0])
        if isinstance(error, GPTError):
            raise
        raise failed or GPTError(f"model {model.name} cannot be loaded from {model.folder}: {reason}") from error
    model.module, model.tokenizer = module, tokenizer
    model.parameters = model.parameters or (
        count if dtype in QUANTIZED else sum(p.numel() for p in module.parameters())
    )


def read(model, dtype: str) -> tuple[Any, list[str]]:
    """The module in a model's folder, and the names of weights that are missing there."""
    import torch

    if dtype in QUANTIZED:
        from jupyter_gpt.models import quantize

        try:
            return quantize.load(model.folder, model.labels, dtype)
        finally:
            devices.give_back("cpu")  # what was read in full precision
    module, info = from_folder(model.folder, model.labels, dtype=getattr(torch, dtype), output_loading_info=True)
    return module, sorted(info["missing_keys"])


def tokenizer_of(model):
    """The tokenizer in a model's folder. Raises GPTError if it is missing or damaged."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model.folder, **SAFE)
        if not isinstance(tokenizer.model_max_length, int | float):
            raise TypeError("model_max_length")
        return tokenizer
    except Exception as error:  # damaged files raise anything
        names = ("tokenizer.json", "tokenizer.model", "vocab.json")
        file = next((name for name in names if (model.folder / name).exists()), None)
        what = f"its {file} cannot be read" if file else "it has no tokenizer.json"
        raise GPTError(f"model {model.name} is damaged: {what}") from error


def full_precision(model):
    """The module of a resident model with fp32 weights: its own, or read from disk again."""
    import torch

    if model.module.dtype == torch.float32:
        return model.module
    return unscaled(from_folder(model.folder, dtype=torch.float32)).to(model.module.device).eval()


def unscaled(module):
    """RWKV divides the weights of its later blocks in place when it is first evaluated, against fp16 overflow: whoever
    shares, copies or saves them would get another model. Without that it computes the same.
    """
    if hasattr(module.config, "rescale_every"):
        module.config.rescale_every = 0
    return module


def check_load_in(bits: str | None) -> None:
    """Raises GPTError where 4 or 8-bit weights are not supported."""
    import importlib.util

    if bits is None:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise GPTError(f"--load-in {bits} needs the package bitsandbytes: pip install bitsandbytes, or leave it out")
    import torch

    if not torch.cuda.is_available():
        raise GPTError(f"--load-in {bits} needs a CUDA GPU, and this machine has none: leave it out")


def quantised(model, bits: str):
    """The model with 4-bit NormalFloat (QLoRA, Dettmers et al. 2023) or 8-bit integer weights, read from disk again."""
    import torch
    from transformers import BitsAndBytesConfig

    if bits == "4bit":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, devices.choose_dtype("cuda", 0)),
        )
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
    module = from_folder(model.folder, quantization_config=config, device_map={"": "cuda"})
    return module.requires_grad_(False).eval()


def unload(models: list) -> bool:
    """Unload models; False if something else still holds the weights of one."""
    device = models[-1].device
    tensors = [weakref.ref(own_tensor(model.module)) for model in models]
    for model in models:
        model.module = model.tokenizer = None
    devices.give_back(device)
    return all(tensor() is None for tensor in tensors)


def own_tensor(module):
    """One of a model's tensors; of an adapter, not of its base."""
    from jupyter_gpt.nn.lora_linear import is_adapter_parameter

    tensors = dict(module.named_parameters())
    return next((t for name, t in tensors.items() if is_adapter_parameter(name)), next(iter(tensors.values())))


def check_weights(model, config: str = "config.json") -> None:
    """Raises GPTError if a folder has no safetensors, an index that names other files, or a damaged configuration."""
    needed = "adapter_model.safetensors" if config == "adapter_config.json" else "*.safetensors"
    if not any(model.folder.glob(needed)):
        raise GPTError(f"model {model.name} has no safetensors in {model.folder}: pickled weights are never read")
    check_files(model.folder, f"model {model.name}")
    check_settings(model.folder, f"model {model.name}")
    try:
        json.loads((model.folder / config).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GPTError(f"model {model.name} is damaged: its {config} cannot be read") from error


def bytes_needed(model, count: int, dtype: str) -> int:
    """Bytes of a model in memory that has `count` numbers on disk."""
    if dtype in QUANTIZED:
        from jupyter_gpt.models import quantize

        return quantize.needed(model.folder, count, dtype)
    return count * BYTES[dtype]


def check_room(model, count: int, dtype: str, device: str, others: Sequence[str]) -> None:
    room, needed = devices.free(device), bytes_needed(model, count, dtype)
    if room is not None and needed > room and needed > room + devices.release(device):
        raise too_large(model, count, dtype, device, others)


def too_large(model, count: int, dtype: str, device: str, others: Sequence[str]) -> GPTError:
    """How much memory it needs, how much there is, and what would fit."""
    room, needed = devices.free(device), bytes_needed(model, count, dtype)
    has = "" if room is None else f", and {device} has {amount(room)} free"
    smaller = ["bfloat16", *(QUANTIZED if device == "cpu" else ())]
    sizes = [(other, bytes_needed(model, count, other)) for other in smaller]
    fits = [
        f"--dtype {other} needs {amount(size)}"
        for other, size in sizes
        if size < needed and (room is None or size <= room)
    ]
    fits += [f"%gpt unload {other}" for other in others]
    hint = f": {', or '.join(fits)}" if fits else ": a smaller model would fit"
    return GPTError(f"model {model.name} needs {amount(needed)} in {dtype}{has}{hint}")


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
