"""The learning-rate schedule: a short linear warm-up, a plateau, a linear decay (Zhai et al. 2022; Hägele et al. 2024).

One shape serves every optimiser; each multiplies its own peak rate by it.
"""

from __future__ import annotations


def multiplier(step: int, steps: int, warmup: float, decay: float, floor: float = 0.0) -> float:
    """The factor on the peak learning rate at `step` (1 to `steps`).

    `warmup` and `decay` are shares of all steps; the decay ends at `floor`.
    """
    rise = max(1, round(warmup * steps))
    fall = round(decay * steps)
    if step <= rise and warmup > 0:
        return step / rise
    if step > steps - fall:
        return floor + (1 - floor) * (steps - step + 1) / (fall + 1)
    return 1.0
