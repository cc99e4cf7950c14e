"""The pictures of reports: matplotlib on white, with grey text of a contrast above 4.5 (WCAG AA), whatever the theme.

matplotlib is imported where something is drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

GREY, BLUE, ORANGE, GREEN, RED = "#666666", "#3b82c4", "#e07b39", "#2f9e6e", "#d04545"
COLOURS = (BLUE, ORANGE, GREEN, "#b3589a", "#c9a227", "#5b6bbf", "#c0504d", "#4aa3a2")
DASHED = (0, (4, 3))
POINTS = 1000  # of a curve kept in the metadata: more than any screen shows


class Panel(NamedTuple):
    """One chart of curves over steps: `(step, value)` points of the training, those of evaluations, the interval of
    the latter as `(step, low, high)`, a limit drawn in red where the values come near it, and the names of both.
    `others` are further runs drawn beside it, each its name and its points.
    """

    title: str
    points: Sequence[tuple[float, float]] = ()
    evaluated: Sequence[tuple[float, float]] = ()
    interval: Sequence[tuple[float, float, float]] = ()
    limit: float | None = None
    names: tuple[str, str] = ("training", "validation")
    smoothed: bool = True
    others: Sequence[tuple[str, Sequence[tuple[float, float]]]] = ()


def figure(width: float = 7.2, height: float = 3.0, rows: int = 1, columns: int = 1, **options: Any) -> tuple:
    """An empty figure of so many inches, and its axes in running order; `options` are those of `subplots`."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=180, facecolor="white")
    axes = made.subplots(rows, columns, squeeze=False, **options).flatten()
    for each in axes:
        style(each)
    return made, axes


def style(axes: Any, x: str = "", y: str = "", title: str = "", size: float = 8) -> None:
    """Grey labels, ticks and a faint grid."""
    axes.set_facecolor("white")
    axes.set_xlabel(x, color=GREY, fontsize=size + 1)
    axes.set_ylabel(y, color=GREY, fontsize=size + 1)
    axes.set_title(title, color=GREY, fontsize=size, loc="left")
    axes.tick_params(colors=GREY, labelsize=size, which="both")
    axes.grid(color=GREY, alpha=0.2, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(side in ("left", "bottom"))


def legend(axes: Any, **options: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**{"frameon": False, "labelcolor": GREY, "fontsize": 8, **options})


def png(made: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    made.tight_layout()
    out = io.BytesIO()
    FigureCanvasAgg(made).print_png(out)
    return out.getvalue()


def label(text: str) -> str:
    """A label that matplotlib draws as it is: a pair of dollar signs would make it read mathematics."""
    return text.replace("$", r"\$")


def panels(shown: Sequence[Panel], alarms: Sequence[int] = (), columns: int = 3) -> Any:
    """The first panel at full width, the others beneath it, `columns` a row; `alarms` are steps, red in all."""
    from matplotlib.figure import Figure

    rows = -(-(len(shown) - 1) // columns)
    made = Figure(figsize=(7.6, 2.8 + 1.6 * rows), dpi=180, facecolor="white")
    grid = made.add_gridspec(1 + rows, columns, height_ratios=[1.75] + [1] * rows)
    for number, panel in enumerate(shown):
        place = grid[0, :] if number == 0 else grid[1 + (number - 1) // columns, (number - 1) % columns]
        axes = made.add_subplot(place)
        curves(axes, panel, small=number > 0)
        for step in alarms:
            axes.axvline(step, color=RED, linewidth=0.9, alpha=0.8)
    return made


def curves(axes: Any, panel: Panel, small: bool = False) -> None:
    """One panel: raw points faint, their moving average strong, evaluations as dots with their interval."""
    x, y = zip(*panel.points, strict=True) if panel.points else ((), ())
    if panel.points:
        axes.plot(x, y, color=BLUE, alpha=0.28, linewidth=0.8)
        axes.plot(x, smooth(y) if panel.smoothed else y, color=BLUE, linewidth=1.6, label=label(panel.names[0]))
        lines = [y, *([value for _, value in points] for _, points in panel.others)]
        tested = [value for _, value in panel.evaluated]
        top = max([*(sorted(line)[int(0.995 * (len(line) - 1))] for line in lines), *tested])
        low = min([*(value for line in lines for value in line), *tested])
        axes.set_ylim(low - 0.05 * (top - low or 1), top + 0.05 * (top - low or 1))  # a few spikes are cut off
    for (name, points), colour in zip(panel.others, [c for c in COLOURS if c not in (BLUE, ORANGE)] * 9, strict=False):
        x, y = zip(*points, strict=True)
        axes.plot(x, smooth(y) if panel.smoothed else y, color=colour, linewidth=1.3, label=label(name))
    if panel.evaluated:
        dots = zip(*panel.evaluated, strict=True)
        size, name = 3 if small else 4, label(panel.names[1])
        axes.plot(*dots, color=ORANGE, marker="o", markersize=size, linewidth=1.2, label=name)
    if panel.interval:
        steps, low, high = zip(*panel.interval, strict=True)
        axes.fill_between(steps, low, high, color=ORANGE, alpha=0.18, linewidth=0)
    values = [value for _, value in (*panel.points, *panel.evaluated)]
    if panel.limit is not None and values and max(values) > panel.limit / 3:
        axes.axhline(panel.limit, color=RED, linewidth=0.9, linestyle=DASHED)
        axes.set_ylim(top=max(axes.get_ylim()[1], 1.05 * panel.limit))
    if small:
        style(axes, title=label(panel.title), size=7)
    else:
        style(axes, "step", label(panel.title))
        legend(axes)
    axes.xaxis.get_major_locator().set_params(integer=True)


def smooth(values: Sequence[float]) -> list[float]:
    """Moving average over a thirtieth of the values (at least five), centred so that it does not lag behind a fall."""
    half = max(2, len(values) // 60)
    total = [0.0, *accumulate(values)]
    windows = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(total[end] - total[start]) / (end - start) for start, end in windows]


def columns(shown: Sequence[Panel], most: int = 3 * POINTS) -> dict:
    """The points of the panels as columns over the steps they share, for a chart that is drawn elsewhere.

    Of more than `most` steps those are kept at which a curve is lowest or highest among its neighbours, so that no
    spike is lost; `of` says how many there were. None where a panel has no value at a step; six significant digits.
    """
    curves = [dict(panel.points) for panel in shown]
    steps = sorted({step for curve in curves for step in curve})
    kept = steps
    if len(steps) > most:
        found = {steps[0], steps[-1]}
        for curve in curves:
            own = [step for step in sorted(curve) if math.isfinite(curve[step])]
            size = -(-2 * len(own) * len(curves) // (most - 2)) or 1
            for start in range(0, len(own), size):
                near = own[start : start + size]
                found |= {min(near, key=curve.__getitem__), max(near, key=curve.__getitem__)}
        kept = sorted(found)
    return {
        "of": len(steps),
        "steps": kept,
        "columns": [[short(curve.get(step)) for step in kept] for curve in curves],
    }


def short(value: float | None) -> float | None:
    """Six significant digits; None for what is no finite number, which JSON cannot say."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def points(events: Sequence[dict], key: str) -> list[tuple[float, float]]:
    """The (step, value) of the events that tell `key`."""
    return [(event["step"], event[key]) for event in events if event.get(key) is not None]


def thinned(rows: Sequence, most: int = POINTS) -> list:
    """At most `most` of the rows, evenly spread, the first and the last always among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]
