"""The schedule of the learning rate: a linear warm-up, a stable phase, a linear decay (warmup-stable-decay; Zhai et al.
2022; Hägele et al. 2024). `warmup` and `decay` are shares of all steps.
"""

from __future__ import annotations


def phases(steps: int, warmup: float, decay: float) -> tuple[int, int]:
    """The last step of the warm-up, and the last one before the decay."""
    rise = max(1, round(warmup * steps)) if warmup > 0 else 0
    return rise, steps - min(round(decay * steps), steps - rise)


def multiplier(step: int, steps: int, warmup: float, decay: float) -> float:
    """The factor on the peak learning rate at `step` (1 to `steps`)."""
    rise, stable = phases(steps, warmup, decay)
    if step <= rise:
        return step / rise
    if step > stable:
        return (steps - step + 1) / (steps - stable + 1)
    return 1.0


def end_of_stable(steps: int, warmup: float, decay: float) -> int:
    """The last step of the stable phase; 0 where the learning rate falls as soon as it has risen."""
    rise, stable = phases(steps, warmup, decay)
    return stable if stable > rise else 0
