"""Memory: how much of it a device has free, and bytes as people read them."""

from __future__ import annotations

import errno
from pathlib import Path

from jupyter_gpt.errors import OutOfMemory

SAID = (
    "can't allocate memory",
    "std::bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)  # by torch, oneDNN
CGROUP = Path("/sys/fs/cgroup")  # what a container may use, where it is one


def amount(size: float) -> str:
    """`538 MB`, `1.2 GB`: bytes as people read them, in powers of ten as disks and model pages count."""
    if size < 999.5e6:
        return f"{size / 1e6:,.0f} MB" if size >= 999.5e3 else f"{size / 1e3:,.0f} kB"
    return f"{size / 1e9:,.1f} GB"


def free(device: str) -> int | None:
    """Bytes that can still be taken on `device`; None where nobody can say."""
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch and oneDNN tell it of the CPU in a plain RuntimeError."""
    if isinstance(error, RuntimeError):  # torch.OutOfMemoryError is one
        return type(error).__name__ == "OutOfMemoryError" or any(said in str(error) for said in SAID)
    return isinstance(error, MemoryError | OutOfMemory) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
