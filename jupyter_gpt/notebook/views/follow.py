"""Follows a run in the cell that started it: a live widget while it works, one static bundle when it ends.

A person in JupyterLab, Notebook, VS Code or Colab sees the widget, which the bundle then replaces in the
same display. With nobody there (nbval, nbclient, papermill, a script) only the final bundle is ever
published, once, because those do not apply updates of a display.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from jupyter_gpt.report.report import Report
from jupyter_gpt.runs.run_figures import ACTIVE

PERIOD = 0.1  # seconds between two looks at a run that trains in the background


def is_live() -> bool:
    """Whether a front end that draws widgets sent the request being executed.

    JupyterLab, Notebook 7 and VS Code name the cell in the request's metadata; nbclient does not.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return False
    if "google.colab" in sys.modules:
        return True
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return bool((parent or {}).get("metadata", {}).get("cellId"))


def follow(
    run: Any, bundle_of_run: Callable[[Any], Report], overlays: list | tuple = (), background: bool = False
) -> None:
    """Shows `run` in the current cell until it ends; in the `background` returns at once and goes on showing.

    `bundle_of_run(run)` makes the static picture of the run as it stands; `overlays` are other runs to
    draw beside it. A failed run leaves the bundle of what it reached, then its error is raised from here; one that
    failed before anything was measured has nothing to show but its error.
    """
    if not is_live():
        _follow_headless(run, bundle_of_run, background)
        return
    from IPython.display import display

    from jupyter_gpt.notebook.views.live import LiveRun
    from jupyter_gpt.notebook.views.widget import leave

    widget = LiveRun(run, overlays)
    handle: Any = display(widget, display_id=True)

    def finish() -> None:
        widget.pump(at_once=True)
        _show(handle.update, bundle_of_run(run) if began(run) else nothing_yet(run))
        leave(widget)

    if background:
        pump = threading.Thread(target=_pump_until_end, args=(run, widget, finish), daemon=True)
        pump.start()
        return
    try:
        run.wait(tick=widget.pump)
    finally:
        finish()


def began(run: Any) -> bool:
    """Whether there is anything to show of it."""
    return any(event["event"] in ("step", "evaluation", "sample") for event in run.events)


def nothing_yet(run: Any) -> Report:
    """What there is to show of a run that has not begun, or never did."""
    text = f"{run.name}: {run.kind}, {run.status} before its first step"
    return Report(text, data={"view": "run", "name": run.name, "kind": run.kind})


def _follow_headless(run: Any, bundle_of_run: Callable[[Any], Report], background: bool) -> None:
    from IPython.display import display

    if background:  # nobody will see it end; what is published must not depend on how far it has come
        print(f"{run.name} trains in the background; %gpt show {run.name} shows how far it is")
        return
    try:
        run.wait()
    finally:
        if began(run):
            _show(display, bundle_of_run(run))


def _pump_until_end(run: Any, widget: Any, finish: Callable[[], None]) -> None:
    pause = threading.Event()
    while run.status in ACTIVE:
        widget.pump()
        pause.wait(PERIOD)
    finish()


def _show(publish: Callable[..., Any], report: Report) -> None:
    data, metadata = report._repr_mimebundle_()
    publish(data, raw=True, metadata=metadata)
