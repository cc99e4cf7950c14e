"""Follows a run in the cell that started it: a live widget while it works, one static report when it ends.

A person in JupyterLab, Notebook, VS Code or Colab sees the widget; the cell is saved with a snapshot of it (place.py),
which the report then replaces in the same display.
With nobody there (nbval, nbclient, papermill, a script) only the final report is ever published, once, because those do
not apply updates of a display.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jupyter_gpt.notebook.views.place import Place
from jupyter_gpt.report.parts import Paragraph
from jupyter_gpt.report.report import Report
from jupyter_gpt.runs.events import last_of
from jupyter_gpt.runs.progress import algorithm
from jupyter_gpt.runs.run import ACTIVE

PERIOD = 0.1  # seconds between two looks at a run that trains in the background


def follow(run: Any, report_of: Callable[[Any], Report], overlays: list | tuple = (), background: bool = False) -> None:
    """Shows `run` in the current cell until it ends; in the `background` returns at once and goes on showing.

    `report_of(run)` makes the static picture of the run as it stands; `overlays` are other runs to draw beside it. A
    failed run leaves the report of what it reached, then its error is raised from here; one that failed before anything
    was measured has nothing to show but its error.
    """
    place = Place()
    if not place.live and background:  # nobody sees it end; what is published must not depend on how far it is
        where = "in the background" if run.here else "in a process of its own"
        print(f"{run.name} trains {where}; %gpt show {run.name} shows how far it is")
        return
    if not place.live:
        try:
            run.wait()
        finally:
            if began(run):
                place.put(report_of(run))
        return
    from jupyter_gpt.notebook.views.live import LiveRun

    widget = place.watch(LiveRun(run, overlays), lambda: snapshot(run, report_of))

    def tick() -> None:
        widget.pump()
        place.renew()

    def finish() -> None:
        widget.pump(at_once=True)
        place.put(report_of(run) if began(run) else nothing_yet(run))

    if background:
        threading.Thread(target=_pump_until_end, args=(run, tick, finish), daemon=True).start()
        return
    try:
        run.wait(tick=tick)
    finally:
        finish()


def snapshot(run: Any, report_of: Callable[[Any], Report]) -> Report:
    """What a run that works is saved as: its report so far, and how to see more."""
    report = report_of(run) if began(run) else nothing_yet(run)
    more = f"Saved while the run was at work. %gpt show {run.name} shows it as it is now."
    return replace(report, parts=[*report.parts, Paragraph(more, "quiet")])


def began(run: Any) -> bool:
    """Whether there is anything to show of it."""
    return any(event["event"] in ("step", "evaluation", "sample") for event in run.events)


def nothing_yet(run: Any) -> Report:
    """What there is to show of a run that has not begun, or never did."""
    text = f"{run.name}: {algorithm(run.kind, run.recipe)}, {run.status} before its first step"
    if run.status in ACTIVE and (stage := last_of(run.events[-1:], "progress")):
        count = f", {stage['done']:,} of {stage['total']:,} {stage['unit']}" if stage["total"] else ""
        text += f": {stage['stage']}{count}"
    return Report(text, data={"view": "run", "name": run.name, "kind": run.kind})


def _pump_until_end(run: Any, tick: Callable[[], None], finish: Callable[[], None]) -> None:
    pause = threading.Event()
    while run.status in ACTIVE:
        tick()
        pause.wait(PERIOD)
    finish()
