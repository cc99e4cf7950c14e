"""The pictures of reports: matplotlib on white, with grey text of a contrast above 4.5 (WCAG AA), whatever the theme.

matplotlib is imported where something is drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice, product
from typing import Any, NamedTuple, TypeAlias

from jupyter_gpt.imports import uninterrupted

GREY, BLUE, ORANGE, GREEN, RED = "#666666", "#3b82c4", "#e07b39", "#2f9e6e", "#d04545"
COLOURS = (BLUE, ORANGE, GREEN, "#b3589a", "#c9a227", "#5b6bbf", "#c0504d", "#4aa3a2")
DASHED = (0, (4, 3))
POINTS = 1000  # of a curve kept in the metadata: more than any screen shows
NAMED = 12  # labels at most that are written on an axis of a picture
LONG = 28  # characters of a name in a legend


@dataclass(frozen=True)
class Group:
    """Points of one name and one colour in a scatter plot.

    labels: what each point is called; `written` has them beside the points. bounds: the interval around each y.
    sizes: relative areas. shape: dot, ring or star. joined: whether a line goes through the points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = BLUE
    labels: Sequence[str] = ()
    bounds: Sequence[tuple[float, float]] = ()
    sizes: Sequence[float] = ()
    shape: str = "dot"
    joined: bool = False
    written: bool = False


@dataclass(frozen=True)
class Scatter:
    """Groups of points. An axis without a name has no numbers: only what is near to what matters.

    log: whether the x axis is logarithmic. diagonal: a dashed line of y = x. size: of the picture, in inches.
    """

    groups: Sequence[Group]
    x: str = ""
    y: str = ""
    log: bool = False
    diagonal: bool = False
    size: tuple[float, float] = (7.2, 3.4)


@dataclass(frozen=True)
class Bars:
    """A value for each name of a bar chart; `colours` are repeated.

    bounds: the interval around each. limit: a dashed line. top: where the axis ends, and `cut` what is written beside a
    bar that goes on.
    """

    title: str
    values: Sequence[float]
    colours: Sequence[str] = (BLUE,)
    bounds: Sequence[tuple[float, float] | None] = ()
    limit: float | None = None
    top: float | None = None
    cut: str = ""


@dataclass(frozen=True)
class BarChart:
    """Bars of the same names beside one another, or `stacked` one above the other."""

    names: Sequence[str]
    panels: Sequence[Bars]
    x: str = ""
    stacked: bool = False
    size: tuple[float, float] = (7.6, 1.9)


@dataclass(frozen=True)
class Matrix:
    """Counts, shaded by their share of their row."""

    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    x: str = "predicted"
    y: str = "true"
    size: tuple[float, float] = (4.2, 3.2)


Plot: TypeAlias = "Scatter | BarChart | Matrix"


class Panel(NamedTuple):
    """One chart of curves over steps: `(step, value)` points of the training, those of evaluations, the interval of
    the latter as `(step, low, high)`, a limit drawn in red where the values come near it, and the names of both.
    `others` are further runs drawn beside it, each its name and its points; `run` is then the name of its own.
    """

    title: str
    points: Sequence[tuple[float, float]] = ()
    evaluated: Sequence[tuple[float, float]] = ()
    interval: Sequence[tuple[float, float, float]] = ()
    limit: float | None = None
    names: tuple[str, str] = ("training", "validation")
    smoothed: bool = True
    others: Sequence[tuple[str, Sequence[tuple[float, float]]]] = ()
    run: str = ""


def figure(width: float = 7.2, height: float = 3.0, rows: int = 1, columns: int = 1, **options: Any) -> tuple:
    """An empty figure of so many inches, and its axes in running order; `options` are those of `subplots`."""
    Figure = uninterrupted("matplotlib.figure").Figure

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
    FigureCanvasAgg = uninterrupted("matplotlib.backends.backend_agg").FigureCanvasAgg

    made.tight_layout()
    out = io.BytesIO()
    FigureCanvasAgg(made).print_png(out)
    return out.getvalue()


def label(text: str) -> str:
    """A label that matplotlib draws as it is: a pair of dollar signs would make it read mathematics."""
    return text.replace("$", r"\$")


def draw(plot: Plot) -> Any:
    """The figure of a plot."""
    return {Scatter: scatter, BarChart: bar_chart, Matrix: matrix}[type(plot)](plot)


def scatter(plot: Scatter) -> Any:
    made, (axes,) = figure(*plot.size)
    count = sum(len(group.points) for group in plot.groups)
    area = max(3.0, min(28.0, 9000 / max(1, count)))
    shapes = {
        "dot": {"s": area, "linewidths": 0, "alpha": 0.85 if plot.x else 0.55},
        "ring": {"s": 90, "facecolors": "none", "linewidths": 1.4},
        "star": {"s": 170, "marker": "*", "edgecolors": "white", "linewidths": 0.6},
    }
    if plot.diagonal:
        low = min(x for group in plot.groups for x, _ in group.points)
        axes.plot([low, 1], [low, 1], color=GREY, linewidth=0.8, linestyle=DASHED)
    for group in (group for group in plot.groups if group.points):
        x, y = zip(*group.points, strict=True)
        look = dict(shapes[group.shape]) | {"color" if group.shape != "ring" else "edgecolors": group.colour}
        if group.sizes:
            look["s"] = [10 + 60 * size / max(group.sizes) for size in group.sizes]
        if group.joined:
            axes.plot(x, y, color=group.colour, linewidth=1.2, alpha=0.7)
        if group.bounds:
            low, high = zip(*group.bounds, strict=True)
            axes.vlines(x, low, high, color=group.colour, linewidth=1)
        name = label(shortened(group.name)).lstrip("_")  # a legend leaves out what begins with _
        axes.scatter(x, y, label=name or None, zorder=3, **look)
    if plot.log:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    if any(group.written for group in plot.groups) and plot.x:
        axes.margins(x=0.25)  # room for what is written
    if plot.x or plot.y:
        style(axes, label(plot.x), label(plot.y))
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if sum(bool(group.name) for group in plot.groups) > 1:
        legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
        for handle in axes.get_legend().legend_handles:
            handle.set_sizes([36])
    write_labels(made, axes, plot.groups)
    return made


def plain_ticks(axis: Any) -> None:
    """Numbers such as 0.025 and 300 on a logarithmic axis, instead of powers of ten."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:.3g}" if super().__call__(x, pos) else ""  # of minor ticks only some are labelled

    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain(minor_thresholds=(1.5, 0.5)))


def write_labels(made: Any, axes: Any, groups: Sequence[Group]) -> None:
    """The labels of `written` groups beside their points: right or left of them, as high or low as is needed to be
    within the axes and on no other label."""
    made.tight_layout()
    inside, taken = axes.get_window_extent(), []
    for group in (group for group in groups if group.written):
        colour = group.colour if group.shape == "ring" else GREY
        for place, text in zip(group.points, group.labels, strict=False):
            note = axes.annotate(label(text), place, (6, 4), textcoords="offset points", fontsize=7, color=colour)
            for dy, side in product((4, -10, 14, -20, 24, -30, 34, -40, 44), ("left", "right")):
                note.set_position((6 if side == "left" else -6, dy))
                note.set_horizontalalignment(side)
                box = note.get_window_extent()
                if inside.x0 <= box.x0 and box.x1 <= inside.x1 and not any(box.overlaps(other) for other in taken):
                    break
            taken.append(box)


def shortened(name: str) -> str:
    return "…" + name[1 - LONG :] if len(name) > LONG else name


def bar_chart(plot: BarChart) -> Any:
    count, many = len(plot.names), len(plot.panels)
    grid = {"rows": many, "sharex": True} if plot.stacked else {"columns": many}
    made, drawn = figure(*plot.size, **grid)
    wide = max(0.6, min(6.0, 330 / max(1, count)))  # points, of bars that only just stand beside one another
    for axes, bars in zip(drawn, plot.panels, strict=True):
        colours = list(islice(cycle(bars.colours), count))
        if plot.stacked:
            axes.vlines(range(1, count + 1), 0, bars.values, colors=colours, linewidth=wide)
            axes.set_xlim(0.2, count + 0.8)
            axes.set_ylim(0, bars.top)
            style(axes, label(plot.x) if bars is plot.panels[-1] else "", label(bars.title), size=7)
            axes.xaxis.get_major_locator().set_params(integer=True)
        else:
            axes.bar(range(count), bars.values, color=colours, width=0.75)
            style(axes, title=label(bars.title), size=6)
            axes.set_xticks(range(count), [label(name) for name in plot.names], rotation=60)
        for place, bound in enumerate(bars.bounds):
            if bound:
                axes.plot([place, place], bound, color=GREY, linewidth=1.2)
        if bars.limit is not None:
            axes.axhline(bars.limit, color=GREY, linewidth=0.8, linestyle=DASHED)
        if bars.cut and bars.top is not None:
            at = next(place for place, value in enumerate(bars.values, start=1) if value > bars.top)
            note = {"xytext": (-3, 2), "textcoords": "offset points", "va": "bottom", "fontsize": 7}
            axes.annotate(label(bars.cut), (at, bars.top), color=GREY, **note)
    if plot.stacked:
        made.align_ylabels(list(drawn))
    return made


def matrix(plot: Matrix) -> Any:
    """The share of each row that a column has, in shades, and the counts where there is room."""
    shares = [[n / max(1, sum(row)) for n in row] for row in plot.counts]
    made, (axes,) = figure(*plot.size)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    if len(plot.rows) <= NAMED:
        for y, row in enumerate(plot.counts):
            for x, n in enumerate(row):
                colour = "white" if shares[y][x] > 0.5 else "#555555"
                axes.text(x, y, f"{n:,}", ha="center", va="center", fontsize=9, color=colour)
        across, down = ([label(name[:12]) for name in names] for names in (plot.columns, plot.rows))
        axes.set_xticks(range(len(across)), across, rotation=30 if len(across) > 3 else 0)
        axes.set_yticks(range(len(down)), down)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set_xlabel(plot.x, color=GREY)
    axes.set_ylabel(plot.y, color=GREY)
    return made


def panels(shown: Sequence[Panel], alarms: Sequence[int] = (), columns: int = 3) -> Any:
    """The first panel at full width, the others beneath it, `columns` a row; `alarms` are steps, red in all."""
    Figure = uninterrupted("matplotlib.figure").Figure

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
    line, dots = (label(f"{panel.run}, {name}" if panel.run else name) for name in panel.names)
    if panel.points:
        axes.plot(x, y, color=BLUE, alpha=0.28, linewidth=0.8)
        axes.plot(x, smooth(y) if panel.smoothed else y, color=BLUE, linewidth=1.6, label=line)
        lines = [y, *([value for _, value in points] for _, points in panel.others)]
        tested = [value for _, value in panel.evaluated]
        top = max([*(sorted(line)[int(0.995 * (len(line) - 1))] for line in lines), *tested])
        low = min([*(value for line in lines for value in line), *tested])
        axes.set_ylim(low - 0.05 * (top - low or 1), top + 0.05 * (top - low or 1))  # a few spikes are cut off
    for (name, points), colour in zip(panel.others, [c for c in COLOURS if c not in (BLUE, ORANGE)] * 9, strict=False):
        x, y = zip(*points, strict=True)
        axes.plot(x, smooth(y) if panel.smoothed else y, color=colour, linewidth=1.3, label=label(name))
    if panel.evaluated:
        size = 3 if small else 4
        axes.plot(
            *zip(*panel.evaluated, strict=True), color=ORANGE, marker="o", markersize=size, linewidth=1.2, label=dots
        )
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


def columns(shown: Sequence[Sequence[tuple[float, float]]], most: int = 3 * POINTS) -> dict:
    """Lists of points as columns over the steps they share, for a chart that is drawn elsewhere.

    Of more than `most` steps those are kept at which a curve is lowest or highest among its neighbours, so that no
    spike is lost; `of` says how many there were. None where a list has no value at a step; six significant digits.
    """
    curves = [dict(points) for points in shown]
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
