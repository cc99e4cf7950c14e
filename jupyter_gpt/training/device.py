"""What this machine can do: which device, which number format pays, and the peak it is measured against."""

from __future__ import annotations

import functools
import time

import torch

# Dense bf16 tensor-core peaks in FLOP/s, by a part of the device's name (vendors' datasheets).
PEAKS = {
    "H200": 989e12, "H100": 989e12, "H800": 989e12, "B200": 2250e12, "GB200": 2250e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10": 125e12, "RTX 5090": 210e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
    "V100": 125e12, "T4": 65e12,
}  # fmt: skip


def default_device() -> str:
    """`cuda` when there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(device: str, width: int) -> str:
    """bf16 where the hardware multiplies it faster than fp32 and the matrices are large enough to feel it."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = "avx512_bf16" in cpu_flags() or "amx_bf16" in cpu_flags()
    return "bfloat16" if native and width >= 192 else "float32"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets as Linux names them; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
    except OSError:
        return frozenset()


@functools.cache
def peak_flops(device: str, dtype: str) -> float | None:
    """Peak FLOP/s in `dtype`: a datasheet's figure for a known GPU, a quarter-second measurement on a CPU.

    None for a GPU this table does not know: a share of an unknown peak would be a made-up number.
    """
    if device == "cuda":
        name = torch.cuda.get_device_name()
        known = next((peak for part, peak in PEAKS.items() if part in name), None)
        return known if dtype == "bfloat16" or known is None else None
    a = torch.randn(1024, 1024, dtype=getattr(torch, dtype))
    best, until = 1.0, time.perf_counter() + 0.25
    with torch.inference_mode():
        while time.perf_counter() < until:
            start = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best
