"""Several small charts side by side: the figures of a run that has more than one that matters."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from jupyter_gpt.notebook.views.curve import GREY, TRAIN, VALIDATION, smooth
from jupyter_gpt.notebook.views.run_head import RED


class Panel(NamedTuple):
    """One chart: its title, (step, value) points of the training, those of evaluations, and a limit drawn in red."""

    title: str
    points: Sequence[tuple[int, float]]
    evaluated: Sequence[tuple[int, float]] = ()
    limit: float | None = None


def picture(panels: Sequence[Panel], columns: int = 3, alarms: Sequence[int] = ()) -> bytes:
    """A PNG of the panels, `columns` a row; `alarms` are steps marked in red in all of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7.6, 1.75 * rows + 0.25), dpi=180, facecolor="none")
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number, facecolor="none")
        draw(axes, panel)
        for step in alarms:
            axes.axvline(step, color=RED, linewidth=0.9, alpha=0.8)
    figure.tight_layout()
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def draw(axes, panel: Panel) -> None:
    """One panel into its axes: raw points faint, their moving average strong, evaluations as dots."""
    if panel.points:
        x, y = zip(*panel.points, strict=True)
        axes.plot(x, y, color=TRAIN, alpha=0.3, linewidth=0.8)
        axes.plot(x, smooth(list(y), min(0.9, 1 - 6 / max(7, len(y)))), color=TRAIN, linewidth=1.5)
    if panel.evaluated:
        axes.plot(*zip(*panel.evaluated, strict=True), color=VALIDATION, marker="o", markersize=3, linewidth=1.1)
    values = [v for _, v in (*panel.points, *panel.evaluated)]
    if panel.limit is not None and values and max(values) > panel.limit / 3:
        axes.axhline(panel.limit, color=RED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_title(panel.title, color=GREY, fontsize=8, loc="left")
    axes.tick_params(colors=GREY, labelsize=6.5)
    axes.grid(color=GREY, alpha=0.2, linewidth=0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    for side, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(side in ("left", "bottom"))


def points(events: Sequence[dict], key: str) -> list[tuple[int, float]]:
    """The (step, value) of the events that tell `key`."""
    return [(event["step"], event[key]) for event in events if event.get(key) is not None]
