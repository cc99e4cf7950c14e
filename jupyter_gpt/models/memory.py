"""Memory: how much of it a device has left, what a model would take, and giving freed memory back.

A load that cannot fit is refused before it starts: Linux would grant the memory and then kill the kernel for using it.
"""

from __future__ import annotations

import gc
import json
import math
import struct
import sys
from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.device_memory import amount as amount
from jupyter_gpt.nn.device_memory import free as free
from jupyter_gpt.nn.device_memory import is_out_of_memory as is_out_of_memory

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def weights(folder: Path) -> int:
    """How many numbers the safetensors files of `folder` hold, read from their headers.

    A file is 8 bytes of header length, little-endian, the header as JSON, then the data; see the format's page at
    https://github.com/huggingface/safetensors. Raises GPTError for a file that is cut short or is none.
    """
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > size - 8:
                    raise ValueError("shorter than its header says")
                header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            if 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0) != size:
                raise ValueError("not as long as its header says")
            numbers = sum(math.prod(tensor["shape"]) for tensor in header.values())
            if not 0 <= numbers <= 8 * size:  # some formats have several numbers in a byte
                raise ValueError("its header names more numbers than it holds")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, struct.error) as error:
            raise GPTError(f"{path} is damaged: {error}") from error
        total += numbers
    return total


def give_back(device: str | None) -> None:
    """Hand freed memory back to the system: Python's garbage, the C library's heap, the GPU allocator's cache."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim:
            trim(0)
