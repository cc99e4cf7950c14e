"""The colour of a probability: the same in the text, the table and the plot of a completion's tokens."""

from __future__ import annotations

import math

from jupyter_gpt.report.parts import Paragraph, Span

# likely to unlikely: blue to vermilion, told apart by every kind of colour vision (Okabe and Ito, 2008)
SCALE = ((0, 114, 178, 0.16), (230, 159, 0, 0.34), (213, 94, 0, 0.62))
UNLIKELY = math.log(100)  # nats at which the scale ends: a token of 1%
LEGEND = (1.0, 0.5, 0.1, 0.01)


def colour(probability: float) -> tuple[float, float, float, float]:
    """Red, green, blue (0 to 255) and alpha (0 to 1) of a token: even steps in surprise, -ln p."""
    at = 2 * min(1.0, -math.log(max(probability, 1e-12)) / UNLIKELY)
    low = min(1, int(at))
    part = at - low
    r, g, b, a = (x + (y - x) * part for x, y in zip(SCALE[low], SCALE[low + 1], strict=True))
    return r, g, b, a


def tint(probability: float) -> str:
    r, g, b, a = colour(probability)
    return f"rgba({r:.0f},{g:.0f},{b:.0f},{a:.2f})"


def legend() -> Paragraph:
    """What the colours mean."""
    swatches = [[" ", Span("up to " * (p == LEGEND[-1]) + f"{p:.0%}", tint=tint(p))] for p in LEGEND]
    return Paragraph(["probability of each token:", *swatches], "quiet visual")


def share(probability: float) -> str:
    """A probability in percent, with the digits that tell it from 0 and from 100."""
    percent = 100 * probability
    if percent < 0.01:
        return "<0.01%"
    return f"{percent:.2f}%" if percent < 1 or 99 < percent < 100 else f"{percent:.1f}%"
