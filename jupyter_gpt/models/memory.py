"""Memory: what a model needs, and returning freed memory.

A load that cannot fit is refused before it starts: Linux would grant the memory and then kill the kernel for using it.
"""

from __future__ import annotations

import gc
import math
import sys
from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.errors import is_out_of_memory as is_out_of_memory
from jupyter_gpt.nn.devices import free as free
from jupyter_gpt.nn.sizes import amount as amount

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def weights(folder: Path) -> int:
    """How many numbers the safetensors files of `folder` hold, from their headers, which the library checks against the
    length of the file. Raises GPTError for a damaged file.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (SafetensorError, ValueError) as error:
            raise GPTError(f"{path} is damaged: {error}") from error
    return total


def give_back(device: str | None) -> None:
    """Return freed memory to the system: Python's garbage, the C library's heap, the GPU allocator's cache."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim:
            trim(0)
