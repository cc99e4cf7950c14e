"""The learning-rate schedule: a short linear warm-up, a plateau, a linear decay (Zhai et al. 2022; Hägele et al. 2024).

One shape serves every optimiser; each multiplies its own peak rate by it.
"""

from __future__ import annotations

from jupyter_gpt.errors import GPTError


def shares(warmup: float | None, decay: float | None, usual: tuple[float, float]) -> tuple[float, float]:
    """Warm-up and decay as asked, each from 0 to 1. What is left open is as `usual`, or what the other leaves of the
    run.

    Raises GPTError where both together are longer than the run.
    """
    if warmup is not None and decay is not None and warmup + decay > 1 + 1e-9:
        raise GPTError(
            f"--warmup {warmup:g} and --decay {decay:g} are shares of the steps: together they are at most 1"
        )
    first = min(usual[0], 1 - (decay or 0.0)) if warmup is None else warmup
    return first, min(usual[1], 1 - first) if decay is None else decay


def multiplier(step: int, steps: int, warmup: float, decay: float, floor: float = 0.0) -> float:
    """The factor on the peak learning rate at `step` (1 to `steps`).

    `warmup` and `decay` are shares of all steps; the decay ends at `floor`.
    """
    rise = max(1, round(warmup * steps)) if warmup > 0 else 0
    fall = min(round(decay * steps), steps - rise)
    if step <= rise:
        return step / rise
    if step > steps - fall:
        return floor + (1 - floor) * (steps - step + 1) / (fall + 1)
    return 1.0
