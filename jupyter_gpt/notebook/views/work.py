"""The measured work of each token beside how hard it was: a transformer spends the same on all of them.

`found` are the tokens of a completion (`token_view.Spoken`), of which `probability` and `seconds` are read.
"""

from __future__ import annotations

import math
import statistics

from jupyter_gpt.notebook.views.likelihood import colour
from jupyter_gpt.report import charts
from jupyter_gpt.report.parts import Inline, Varies

SHOWN = 1000  # tokens drawn


def spread(found: list) -> tuple[float, float, float] | None:
    """Milliseconds per token: median, 5th and 95th percentile. Without the first token, which reads the prompt too."""
    times = sorted(t.seconds * 1e3 for t in (found[1:] or found) if t.seconds is not None)
    if not times:
        return None
    return middle(times), times[int(0.05 * (len(times) - 1))], times[math.ceil(0.95 * (len(times) - 1))]


def correlation(found: list) -> float | None:
    """Pearson's, of surprise and seconds over all tokens but the first; None where one of them does not vary."""
    pairs = [(-math.log(max(t.probability, 1e-12)), t.seconds) for t in found[1:]]
    if len(pairs) < 3:
        return None
    try:
        return statistics.correlation(*zip(*pairs, strict=True))
    except statistics.StatisticsError:
        return None


def work_line(found: list, samples: int) -> Inline:
    """What was measured of the work, in words; empty where nothing was."""
    measured = spread(found)
    if measured is None:
        return ""
    median, low, high = (Varies(value, 1) for value in measured)
    shared = f" (a step serves all {samples} samples)" if samples > 1 else ""
    return [
        *("time per token: median ", median, f" ms{shared}, 90% within ", low, " to ", high),
        *(" ms; correlation with surprise: ", Varies(correlation(found), 2)),
        ". A person slows down where a text gets hard, a transformer computes the same for every token; the first "
        "token's time includes the prompt.",
    ]


def middle(values: list[float]) -> float:
    """The median; of an even number the upper one."""
    return sorted(values)[len(values) // 2]


def work_picture(found: list):
    """Two plots over the same tokens: surprise in nats, which varies, and milliseconds, which do not."""
    drawn = found[:SHOWN]
    figure, (hard, work) = charts.figure(7.6, 2.9, 2, 1, sharex=True)
    x = range(1, len(drawn) + 1)
    width = max(0.6, min(6.0, 330 / len(drawn)))
    surprise = [-math.log(max(t.probability, 1e-12)) for t in drawn]
    shades = [(r / 255, g / 255, b / 255, max(0.75, a)) for r, g, b, a in (colour(t.probability) for t in drawn)]
    hard.vlines(x, 0, surprise, colors=shades, linewidth=width)
    times = [1e3 * (t.seconds or 0) for t in drawn]
    median, _, high = spread(found) or (0.0, 0.0, 0.0)
    bars = [charts.ORANGE, *[charts.BLUE] * (len(times) - 1)]
    work.vlines(x, 0, times, colors=bars, linewidth=width, alpha=0.85)
    work.axhline(median, color=charts.GREY, linewidth=0.8, linestyle=charts.DASHED)
    top = 1.35 * max(high, median)
    work.set_ylim(0, top)
    if times[0] > top:
        note = {"xytext": (-3, 2), "textcoords": "offset points", "va": "bottom", "fontsize": 7}
        work.annotate(f"{times[0]:.0f} ms, with the prompt", (1, top), color=charts.ORANGE, **note)
    hard.set_ylim(bottom=0)
    charts.style(hard, y="surprise, nats", size=7)
    charts.style(work, "token", "time per token, ms", size=7)
    work.set_xlim(0.2, len(drawn) + 0.8)
    work.xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels([hard, work])
    return figure
