"""Loading a model into memory and taking it out again.

Both run on the worker, between two pieces of whatever else it does: transformers sets torch's default number format
while it builds a model, and a training step that ran meanwhile would read it.
"""

from __future__ import annotations

import json
import re
import weakref
from contextlib import contextmanager

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import memory
from jupyter_gpt.models.model_files import check_files, check_settings

DTYPES = tuple(memory.BYTES)


def resident_dtype(device: str):
    """The number format in which models wait to be used: fp32 on a CPU, bf16 on a GPU, fp16 on one that has no bf16."""
    import torch

    if device != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


@contextmanager
def quiet():
    """Without the progress bars and reports that transformers prints; what matters of them is raised."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def check_device(device: str) -> str:
    """`device` if torch can compute on it here. Raises GPTError otherwise."""
    import torch

    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise GPTError(f"{device} is no device: cpu, cuda, or cuda:0 for the first of several")
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind, _, number = device.partition(":")
    if not here[kind]:
        raise GPTError(f"there is no {kind} on this machine: {' or '.join(k for k in here if here[k])}")
    if number and int(number) >= torch.cuda.device_count():
        raise GPTError(f"there is no {device}: this machine has {torch.cuda.device_count()} (counted from 0)")
    return device


def load(model, dtype: str | None = None, device: str | None = None, others: list[str] = ()) -> None:
    """Bring a model of the store into memory, in `dtype` on `device` or in what this machine does best.

    `others` says what could be unloaded, for the message when it does not fit. Raises GPTError, one line, for weights
    that are damaged, missing or pickled, for a model that needs code of its own, and when memory is short; memory is
    then as it was before.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from jupyter_gpt.nn.devices import default_device

    device = check_device(device or default_device())
    dtype = dtype or str(resident_dtype(device.partition(":")[0])).removeprefix("torch.")
    if dtype not in DTYPES:
        raise GPTError(f"{dtype} is no number format for a model: {', '.join(DTYPES)}")
    check_weights(model)
    needed = memory.weights(model.folder) * memory.BYTES[dtype]
    check_room(model.name, needed, dtype, device, others)
    try:
        with quiet():
            kind = AutoModelForSequenceClassification if model.labels else AutoModelForCausalLM
            module, found = kind.from_pretrained(
                model.folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            tokenizer = tokenizer_of(model)
        if found["missing_keys"]:  # transformers would fill them with noise
            missing = sorted(found["missing_keys"])
            raise GPTError(f"model {model.name} is damaged: {len(missing)} of its weights are missing ({missing[0]} …)")
        unscaled(module).requires_grad_(False).to(device).eval()
    except Exception as error:  # what files of any content make of the libraries that read them
        found = module = None
        failed = too_large(model.name, needed, dtype, device, others) if memory.is_out_of_memory(error) else None
        reason = first_line(error)
        error.__traceback__ = None  # its frames hold what was loaded so far
        memory.give_back(device.partition(":")[0])
        if isinstance(error, GPTError):
            raise
        raise failed or GPTError(f"model {model.name} cannot be loaded from {model.folder}: {reason}") from error
    model.module, model.tokenizer = module, tokenizer
    model.parameters = model.parameters or sum(p.numel() for p in module.parameters())


def tokenizer_of(model):
    """The tokenizer in a model's folder. Raises GPTError when there is none, or none that can be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what a file of any content makes of the libraries that read it
        file = next(
            (f for f in ("tokenizer.json", "tokenizer.model", "vocab.json") if (model.folder / f).exists()), None
        )
        what = f"its {file} cannot be read" if file else "it has no tokenizer.json"
        raise GPTError(f"model {model.name} is damaged: {what}") from error


def full_precision(model):
    """The module of a resident model with fp32 weights: its own, or read from disk again where it waits in fewer
    bits.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if model.module.dtype == torch.float32:
        return model.module
    with quiet():
        module = AutoModelForCausalLM.from_pretrained(
            model.folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    return unscaled(module).to(model.module.device).eval()


def unscaled(module):
    """RWKV divides the weights of its later blocks, in place, when it is first evaluated, against overflows of fp16:
    whatever
    shares, copies or saves them then has another model. Told not to, it computes the same."""
    if hasattr(module.config, "rescale_every"):
        module.config.rescale_every = 0
    return module


def check_load_in(bits: str | None) -> None:
    """Raises GPTError where weights of 4 or 8 bits cannot be computed with."""
    import importlib.util

    if bits is None:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise GPTError(
            f"--load-in {bits} needs the package bitsandbytes, which is not installed: leave it out, or install it"
        )
    import torch

    if not torch.cuda.is_available():
        raise GPTError(f"--load-in {bits} needs a CUDA GPU, and this machine has none: leave it out")


def quantised(model, bits: str):
    """The weights of a model read once more, in 4-bit normal floats (QLoRA, Dettmers et al. 2023) or 8-bit integers."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from jupyter_gpt.nn.devices import choose_dtype

    if bits == "4bit":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, choose_dtype("cuda", 0)),
        )
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
    with quiet():
        module = AutoModelForCausalLM.from_pretrained(
            model.folder,
            quantization_config=config,
            device_map={"": "cuda"},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    return module.requires_grad_(False).eval()


def unload(models: list) -> bool:
    """Take models out of memory; False when something else still holds the weights of one, so that they stay there."""
    device = models[-1].device
    held = [weakref.ref(own_tensor(model.module)) for model in models]
    for model in models:
        model.module = model.tokenizer = None
    memory.give_back(device)
    return all(tensor() is None for tensor in held)


def own_tensor(module):
    """One of the tensors that are a model's own: of an adapter, not its base's."""
    from jupyter_gpt.nn.lora_linear import is_adapter_parameter

    tensors = dict(module.named_parameters())
    return next((t for name, t in tensors.items() if is_adapter_parameter(name)), next(iter(tensors.values())))


def check_weights(model, config: str = "config.json") -> None:
    """Raises GPTError when a folder has no safetensors, an index that names others, or settings that cannot be read."""
    needed = "adapter_model.safetensors" if config == "adapter_config.json" else "*.safetensors"
    if not any(model.folder.glob(needed)):
        raise GPTError(f"model {model.name} has no safetensors in {model.folder}: pickled weights are never read")
    check_files(model.folder, f"model {model.name}")
    check_settings(model.folder, f"model {model.name}")
    try:
        json.loads((model.folder / config).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GPTError(f"model {model.name} is damaged: its {config} cannot be read") from error


def check_room(name: str, needed: int, dtype: str, device: str, others: list[str]) -> None:
    room = memory.free(device)
    if room is not None and needed > room:
        raise too_large(name, needed, dtype, device, others)


def too_large(name: str, needed: int, dtype: str, device: str, others: list[str]) -> GPTError:
    """The line that says what was wanted, what there is, and what would fit."""
    room = memory.free(device)
    has = "" if room is None else f", and {device} has {memory.amount(room)} free"
    half = needed // memory.BYTES[dtype] * 2
    fits = [f"--dtype bfloat16 wants {memory.amount(half)}"] if half < needed and (room is None or half <= room) else []
    fits += [f"%gpt unload {other}" for other in others]
    hint = f": {', or '.join(fits)}" if fits else ": a smaller model would fit"
    return GPTError(f"model {name} wants {memory.amount(needed)} in {dtype}{has}{hint}")


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
