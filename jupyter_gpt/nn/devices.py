"""What this machine can do: which device, which number format pays, and the peak it is measured against."""

from __future__ import annotations

import functools
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_gpt.runs.events import Note

if TYPE_CHECKING:
    import torch

# Dense tensor-core peaks in FLOP/s, of bf16 and fp16, by a part of the device's name (vendors' datasheets).
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "H800": 989e12,
    "B200": 2250e12,
    "GB200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "V100": 125e12,
    "T4": 65e12,
}

TENSOR_CORES = (7, 0)  # the first compute capability that has them, for fp16
releases: list[Callable[[str], int]] = []  # of caches; each frees its own on a device and returns the bytes
CGROUP = Path("/sys/fs/cgroup")  # what a container may use, where it is one


def default_device() -> str:
    """`cuda` when there is one, else `mps` (Apple's GPU) when that is there and this process trains alone, else
    `cpu`."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() and current_ranks() is None else "cpu"


def current_ranks() -> Any:
    """The ranks that this process is one of (`distributed.py`); None where a run has one."""
    module = sys.modules.get("jupyter_gpt.nn.distributed")
    return module and module.current()


def free(device: str) -> int | None:
    """Bytes that can still be taken on `device`; None where nobody can say."""
    import torch

    if device.startswith("cuda"):
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
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


def memory(device: str) -> int:
    """Bytes of memory that `device` has: of a container what it may use."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    import psutil

    total = psutil.virtual_memory().total
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
    except OSError:  # no cgroup v2
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def release(device: str) -> int:
    """Free what is kept on `device` only because it may be of use again; returns how many bytes that was."""
    return sum(free_cache(device) for free_cache in releases)


def give_back(device: str | None) -> None:
    """Return freed memory to the system: Python's garbage, the C library's heap, the GPU allocator's cache."""
    gc.collect()
    if device in ("cuda", "mps"):
        import torch

        getattr(torch, device).empty_cache()
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim:
            trim(0)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of the CPU and of `device` from `seed`; afterwards torch's global generators are as they were, for
    they belong to the user. For one pass, never across a yield.
    """
    import torch

    cuda, mps = device.type == "cuda", device.type == "mps"
    before = torch.mps.get_rng_state() if mps else None
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        if mps:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if before is not None:
                torch.mps.set_rng_state(before)


def choose_dtype(device: str, width: int) -> str:
    """bf16 where the hardware multiplies it faster than fp32 and the matrices are large enough to feel it; fp16 on GPUs
    that have tensor cores for that alone (V100, T4)."""
    import torch

    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability() >= TENSOR_CORES else "float32"
    if device == "mps":  # its units multiply all formats equally fast, and fp32 needs no care
        return "float32"
    native = "avx512_bf16" in cpu_flags() or "amx_bf16" in cpu_flags()
    return "bfloat16" if native and width >= 128 else "float32"


def notes(device: str, dtype: str) -> Iterator[Note]:
    """A note if a GPU trains in another format because it has no bf16."""
    import torch

    if device == "cuda" and dtype == choose_dtype(device, 0) != "bfloat16":
        how = "float16, with loss scaling" if dtype == "float16" else "float32, slower and with twice the memory"
        yield Note(text=f"{torch.cuda.get_device_name()} has no bfloat16: it trains in {how}")


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets as Linux names them; empty elsewhere."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
    except OSError:
        return frozenset()


_measured: dict[str, float] = {}  # the best product a CPU has shown so far, by dtype


def peak_flops(device: str, dtype: str, seconds: float = 0.25) -> float | None:
    """Peak FLOP/s in `dtype`: a datasheet's figure for a known GPU, the best of all products timed so far on a CPU.

    None for a GPU this table does not know: a share of an unknown peak would be a made-up number. A CPU is measured
    for `seconds` at each call, and only ever found faster: one that was busy at first corrects itself.
    """
    import torch

    if device == "cuda":
        name = torch.cuda.get_device_name()
        known = next((peak for part, peak in PEAKS.items() if part in name), None)
        return known if dtype in ("bfloat16", "float16") or known is None else None
    if device != "cpu":
        return None
    a = torch.randn(1024, 1024, dtype=getattr(torch, dtype), generator=torch.Generator())
    until = time.perf_counter() + seconds
    with torch.inference_mode():
        while (start := time.perf_counter()) < until:
            a @ a
            rate = 2 * 1024**3 / (time.perf_counter() - start)
            _measured[dtype] = max(rate, _measured.get(dtype, 0.0))
    return _measured.get(dtype)  # None if this thread had no time for one product


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep what tensors free for the next ones, where it is glibc.

    By default it gives every large block back to the system and takes it anew, zeroed page by page: 35,000 page faults
    a step of a 6M model, a tenth of its time. Blocks over 32 MiB (its own upper limit) still go back.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(M_ARENA_MAX, 1)  # the arenas of other threads are given back whatever the thresholds


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    import torch

    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def let_go_of_threads() -> None:
    """Let the calling thread's idle OpenMP threads go, where torch uses GCC's OpenMP; its next product starts new ones.

    Every thread of Python that has multiplied keeps a pool of them. As soon as the pools of two have more threads than
    there are cores, all of them wait asleep instead of awake: after one `model.generate` of a user's on the main
    thread, a training step on the worker took 1.3 times as long.
    """
    if openmp := gcc_openmp():
        openmp.omp_pause_resource_all(1)  # soft: what was set stays set


@functools.cache
def gcc_openmp():
    """The library as torch has loaded it, or None."""
    import ctypes

    import torch

    if sys.platform != "linux":
        return None
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "omp_pause_resource_all"):  # since GCC 9
            return library
    return None


def resolved(dtype: str, module) -> str:
    """The data type of activations: `dtype`, or for "auto" what this machine is fast in at the width of `module`."""
    if dtype != "auto":
        return dtype
    return choose_dtype(module.device.type, module.config.get_text_config().hidden_size)
