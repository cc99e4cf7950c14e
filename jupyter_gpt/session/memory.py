"""Memory: how much of it a device has left, what a model would take, and giving freed memory back.

A load that cannot fit is refused before it starts: Linux would grant the memory and then kill the kernel for using it.
"""

from __future__ import annotations

import gc
import json
import struct
import sys
from pathlib import Path

from jupyter_gpt.errors import GPTError, OutOfMemory

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CGROUP = Path("/sys/fs/cgroup")  # what a container may use, where it is one


def amount(size: float) -> str:
    """`538 MB`, `1.2 GB`: bytes as people read them, in powers of ten as disks and model pages count."""
    if size < 999.5e6:
        return f"{size / 1e6:,.0f} MB" if size >= 999.5e3 else f"{size / 1e3:,.0f} kB"
    return f"{size / 1e9:,.1f} GB"


def free(device: str) -> int | None:
    """Bytes that a new model could use on `device`; None where nobody can say."""
    if device.startswith("cuda"):
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device != "cpu":
        return None
    import psutil

    limits = [psutil.virtual_memory().available]
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
            used = int((CGROUP / "memory.current").read_text()) - int(cached.get("inactive_file", 0))
            limits.append(int(limit) - used)
    except (OSError, ValueError):  # no cgroup v2: what the machine says stands
        return limits[0]
    return max(0, min(limits))


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
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise GPTError(f"{path} is damaged: {error}") from error
        for tensor in header.values():
            count = 1
            for side in tensor["shape"]:
                count *= side
            total += count
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch tells it of the CPU in a plain RuntimeError."""
    import torch

    return isinstance(error, MemoryError | OutOfMemory | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
