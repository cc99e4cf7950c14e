"""Confidence intervals of proportions."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # the 97.5th percentile of the normal distribution


def wilson(share: float, count: float, z: float = Z95) -> tuple[float, float]:
    """The 95% interval of a proportion in `count` independent trials (Wilson 1927); (0, 1) without trials. Unlike mean
    ± 1.96 standard errors it stays within 0 and 1, and holds for few trials and proportions near 0 or 1.
    """
    if not count:
        return 0.0, 1.0
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    total = 1 + z * z / count
    return max(0.0, (middle - half) / total), min(1.0, (middle + half) / total)
