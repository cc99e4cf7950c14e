"""How far a share that was counted may be off."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # standard deviations on either side of the mean that hold 95% of a normal distribution


def wilson(share: float, count: float, z: float = Z95) -> tuple[float, float]:
    """The 95% interval of a share seen in `count` independent trials (Wilson 1927); (0, 1) where there was none.

    Unlike mean +- 1.96 errors it stays within 0 and 1, and is right for few trials and for shares near the ends.
    """
    if not count:
        return 0.0, 1.0
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    total = 1 + z * z / count
    return max(0.0, (middle - half) / total), min(1.0, (middle + half) / total)
