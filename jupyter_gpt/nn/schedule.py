"""The schedule of the learning rate: a linear warm-up, a stable phase, a linear decay."""

from __future__ import annotations


def multiplier(step: int, steps: int, warmup: float, decay: float) -> float:
    """The factor on the peak learning rate at `step` (1 to `steps`): a short linear warm-up, a plateau, a linear decay
    (Zhai et al. 2022; Hägele et al. 2024).

    `warmup` and `decay` are shares of all steps.
    """
    rise = max(1, round(warmup * steps)) if warmup > 0 else 0
    fall = min(round(decay * steps), steps - rise)
    if step <= rise:
        return step / rise
    if step > steps - fall:
        return (steps - step + 1) / (fall + 1)
    return 1.0
