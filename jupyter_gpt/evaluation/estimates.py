"""Estimates: a figure that was measured, and its 95% interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.metrics import wilson

RESAMPLES = 10_000  # bootstrap resamples
EXPECTED = "a number, a list of outcomes (True or False) or of numbers, or a setting of gpt.evaluate"


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95% interval, which are the value itself where nothing is known about its spread.

    `values` are the single measurements, `()` if there is only a figure or a count. A `share` is a proportion, 0 to 1.
    """

    value: float
    low: float
    high: float
    share: bool = False
    values: tuple[float, ...] = ()

    @property
    def has_interval(self) -> bool:
        return self.low != self.high


def estimate(measured: object) -> Estimate:
    """The estimate of a number (no interval), of outcomes (their proportion, Wilson 1927), of several numbers (their
    mean, bootstrap percentiles, Efron 1979) or of a setting of `gpt.evaluate` (its accuracy or mean score, a share).

    Raises GPTError for anything else, for an empty list and for what is not finite.
    """
    if hasattr(measured, "right") and hasattr(measured, "count"):
        scores = getattr(measured, "scores", ())  # of graded answers
        return replace(estimate(scores), share=True) if scores else proportion(measured.right, measured.count)  # pyright: ignore
    try:
        values = tuple(float(value) for value in measured)  # pyright: ignore
    except (TypeError, ValueError):
        try:
            value = float(measured)  # pyright: ignore
        except (TypeError, ValueError):
            raise GPTError(f"expected {EXPECTED}, got {measured!r:.60}") from None
        values = ()
    else:
        if not values:
            raise GPTError(f"expected {EXPECTED}, got an empty list")
        value = sum(values) / len(values)
    if not math.isfinite(value):
        raise GPTError(f"expected a finite number, got {value}")
    if not values:
        return Estimate(value, value, value)
    if set(values) <= {0.0, 1.0}:
        found = proportion(int(sum(values)), len(values))
        return Estimate(found.value, found.low, found.high, True, values)
    return Estimate(value, *bootstrap(values), values=values)


def proportion(right: int, count: int) -> Estimate:
    """The estimate of a proportion."""
    share = right / count if count else 0.0
    return Estimate(share, *wilson(share, count), share=True)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """The first minus the second.

    The interval is the bootstrap of the paired differences where both have as many measurements (of the same questions,
    in the same order), else Newcombe's hybrid of the two intervals (1998, method 10), which needs no pairs. Pairs that
    are all alike take the hybrid too: every resample of them is the same, however few they are.
    """
    value, share = one.value - other.value, one.share and other.share
    pairs = ()
    if len(one.values) == len(other.values):
        pairs = tuple(a - b for a, b in zip(one.values, other.values, strict=True))
    if len(set(pairs)) > 1:
        return Estimate(value, *bootstrap(pairs), share=share, values=pairs)
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, low, high, share=share, values=pairs)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the mean of resamples; the mean twice for a single value."""
    import numpy

    numbers = numpy.asarray(values)
    drawn = numpy.random.default_rng(0).integers(0, len(numbers), (RESAMPLES, len(numbers)))
    low, high = numpy.percentile(numbers[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
