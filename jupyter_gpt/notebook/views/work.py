"""The measured work of each token beside how hard it was: a transformer spends the same on all of them.

`found` are the tokens of a completion (`token_view.Spoken`), of which `probability` and `seconds` are read.
"""

from __future__ import annotations

import io
import math
import statistics

from jupyter_gpt.notebook.views.bundle import about
from jupyter_gpt.notebook.views.curve import GREY, TRAIN, VALIDATION
from jupyter_gpt.notebook.views.likelihood import colour

SHOWN = 1000  # tokens drawn


def spread(found: list) -> tuple[float, float, float] | None:
    """Milliseconds a token: median, and the 5th and 95th of a hundred. Without the first, which reads the
    prompt too."""
    times = sorted(t.seconds * 1e3 for t in (found[1:] or found) if t.seconds is not None)
    if not times:
        return None
    return middle(times), times[int(0.05 * (len(times) - 1))], times[math.ceil(0.95 * (len(times) - 1))]


def correlation(found: list) -> float | None:
    """Pearson's, of surprise and seconds over all tokens but the first; None where one of them does not
    vary."""
    pairs = [(-math.log(max(t.probability, 1e-12)), t.seconds) for t in found[1:]]
    if len(pairs) < 3:
        return None
    try:
        return statistics.correlation(*zip(*pairs, strict=True))
    except statistics.StatisticsError:
        return None


def work_line(found: list, samples: int) -> str:
    """What was measured of the work, in words; empty where nothing was."""
    measured = spread(found)
    if measured is None:
        return ""
    median, low, high = (about(value, 1) for value in measured)
    shared = f" (a step serves all {samples} samples)" if samples > 1 else ""
    return (
        f"work: {median} ms a token{shared}, nine in ten within {low} to {high}; its correlation with how "
        f"surprising the token was: {about(correlation(found), 2)}. A person slows down where it gets hard, "
        "a transformer computes the same for every token; the first also reads the prompt."
    )


def middle(values: list[float]) -> float:
    """The median; of an even number the upper one."""
    return sorted(values)[len(values) // 2]


def work_picture(found: list) -> bytes:
    """A PNG, two plots over the same tokens: surprise in nats, which goes up and down, and milliseconds,
    which do not."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = found[:SHOWN]
    figure = Figure(figsize=(7.6, 2.9), dpi=180, facecolor="none")
    hard, work = figure.subplots(2, 1, sharex=True)
    x = range(1, len(drawn) + 1)
    width = max(0.6, min(6.0, 330 / len(drawn)))
    surprise = [-math.log(max(t.probability, 1e-12)) for t in drawn]
    shades = [(r / 255, g / 255, b / 255, max(0.75, a)) for r, g, b, a in (colour(t.probability) for t in drawn)]
    hard.vlines(x, 0, surprise, colors=shades, linewidth=width)
    times = [1e3 * (t.seconds or 0) for t in drawn]
    median, _, high = spread(found)
    work.vlines(x, 0, times, colors=[VALIDATION, *[TRAIN] * (len(times) - 1)], linewidth=width, alpha=0.85)
    work.axhline(median, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    top = 1.35 * max(high, median)
    work.set_ylim(0, top)
    if times[0] > top:
        work.annotate(
            f"{times[0]:.0f} ms, with the prompt",
            (1, top),
            (-3, 2),
            textcoords="offset points",
            color=VALIDATION,
            fontsize=7,
            va="bottom",
        )
    hard.set_ylim(bottom=0)
    hard.set_ylabel("surprise, nats", color=GREY, fontsize=8)
    work.set_ylabel("work, ms", color=GREY, fontsize=8)
    work.set_xlabel("token", color=GREY, fontsize=8)
    work.set_xlim(0.2, len(drawn) + 0.8)
    work.xaxis.get_major_locator().set_params(integer=True)
    for axes in (hard, work):
        axes.set_facecolor("none")
        axes.tick_params(colors=GREY, labelsize=7)
        axes.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.6)
        for side, spine in axes.spines.items():
            spine.set_color(GREY)
            spine.set_visible(side in ("left", "bottom"))
    figure.align_ylabels([hard, work])
    figure.tight_layout()
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
