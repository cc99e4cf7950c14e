"""Where a running cell shows something: one display, replaced while a person watches, else published once."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion_report import answer, completion_report
from jupyter_gpt.report.parts import Paragraph
from jupyter_gpt.report.report import MIME, Report

AT_ONCE = 8  # samples drawn while they are written
HEAVY = 50_000  # characters of HTML from which on the display is updated less often
PERIODS = (1.0, 10.0)  # seconds between two snapshots, at first and later
SHARE = 0.03  # of the time, at most, goes into drawing them


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
    return bool(cell_id_of(shell))


def cell_id_of(shell: Any) -> str:
    """The running cell's id as the front end tells it, "" where it does not."""
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return (parent or {}).get("metadata", {}).get("cellId") or ""


def draws_over() -> bool:
    """Whether the front end draws a widget over an output (widget.py). The cell ids of JupyterLab and Notebook are
    those of the file format; VS Code gives an address, and Colab none.
    """
    from IPython import get_ipython

    return re.fullmatch(r"[\w-]+", cell_id_of(get_ipython())) is not None


class Place:
    """One display of the running cell. Left by an error it shows what `kept` gives, or nothing."""

    def __init__(self):
        self.live: bool = is_live()
        self.handle: Any = taken_over()
        self.widget: Any = None
        self.snapshot: Callable[[], Report] | None = None
        self.drawing: threading.Thread | None = None
        self.renew_at, self.period, self.beside, self.form = 0.0, PERIODS[0], False, None

    def __enter__(self):
        from jupyter_gpt.models import models

        self.told, models.tell_loading = models.tell_loading, self.loading
        return self

    def loading(self, name: str) -> None:
        """Says that a model is loaded first, where nothing is shown yet."""
        if self.live and self.handle is None:
            self.put(Report("", [Paragraph(f"loading {name} …", "quiet")]))

    def __exit__(self, error, *_) -> None:
        from jupyter_gpt.models import models

        models.tell_loading = self.told
        if error is None:
            return
        if (report := self.kept()) is not None:
            self.put(report)
        else:
            self.clear()

    def kept(self) -> Report | None:
        """What stays when an error ends the cell."""
        return None

    def put(self, report: Report) -> None:
        """Shows a report in the place of what was shown before."""
        self._last(report._repr_mimebundle_)

    def watch(self, widget: Any, snapshot: Callable[[], Report], beside: bool = False) -> Any:
        """Shows a widget until a report takes its place, over the `snapshot` of it that the notebook is saved with, or
        `beside` a snapshot that is to be seen too.
        """
        from IPython.display import display

        self.widget, self.beside, over = widget, beside, draws_over()
        if over or beside:
            self.snapshot = snapshot
            self.renew(at_once=True)
        if not over:
            shown = display(widget, display_id=True)
            self.handle, self.form = (self.handle, shown) if beside else (shown, None)
        return widget

    def renew(self, at_once: bool = False) -> None:
        """Has the snapshot drawn anew when it is time to, on a thread of its own; `at_once` here and now."""
        if at_once:
            self._draw()
        elif self.snapshot is not None and self.drawing is None and time.monotonic() >= self.renew_at:
            self.drawing = threading.Thread(target=self._draw, daemon=True)
            self.drawing.start()

    def _draw(self) -> None:
        began = time.thread_time()  # what it costs, however busy the machine is
        assert self.snapshot is not None
        try:
            data, metadata = self.snapshot()._repr_mimebundle_()
            data["text/html"] = self.widget.marked(data["text/html"], self.beside)
            if not self.beside:
                del data[MIME]  # whose renderer would draw no mark
            self._show(data, metadata if self.beside else {})
        finally:  # the next may succeed
            self.renew_at = time.monotonic() + max(self.period, (time.thread_time() - began) / SHARE)
            self.period = min(2 * self.period, PERIODS[1])
            self.drawing = None

    def clear(self) -> None:
        """Takes away what was shown."""
        if self.handle is not None:
            self._last(lambda: ({}, {}))
            self.handle = None

    def _last(self, drawn: Callable[[], tuple[dict, dict]]) -> None:
        if drawing := self.drawing:
            drawing.join()  # matplotlib draws one picture at a time
        self._show(*drawn(), last=True)
        self.widget = self.snapshot = None

    def _show(self, data: dict, metadata: dict, last: bool = False) -> None:
        from IPython.display import display

        if self.handle is None:
            self.handle = display(data, raw=True, metadata=metadata, display_id=self.live)
        else:
            self.handle.update(data, raw=True, metadata=metadata)
        if self.widget is not None:
            self.widget.renewed(data, metadata, last)
        if last and self.form is not None:
            self.form.update({}, raw=True)


_announced: Place | None = None  # which the cell's own place takes over


@contextmanager
def announced(name: str) -> Iterator[None]:
    """Says at once that a model or an index is loaded. In the first cell of a kernel that takes a second to find out:
    until then what reads the options and looks for it is imported.
    """
    global _announced
    with suppress(GPTError):
        places = (store.home() / "models", store.cache() / "models", store.home() / "indexes")
        folders = (place / store.check_name(name) for place in places)
        session = sys.modules.get("jupyter_gpt.session")
        if not hasattr(session, "gpt") and any(folder.is_dir() for folder in folders):
            _announced = Place()
            _announced.loading(name)
    try:
        yield
    finally:
        if _announced is not None:  # an error came before the place
            _announced.clear()
            _announced = None


def taken_over() -> Any:
    """The display of what was announced."""
    global _announced
    announced, _announced = _announced, None
    return announced and announced.handle


class Writing(Place):
    """The display of an answer while it is written: `show` it as it grows, then `put` its report. Left by an error, it
    keeps what had come.
    """

    def __init__(self):
        super().__init__()
        self.shown, self.next = None, 0.0

    def kept(self) -> Report | None:
        written = self.shown is not None and any(sample.tokens for sample in self.shown.samples)
        return completion_report(self.shown) if self.handle is not None and written else None

    def show(self, completion) -> None:
        """The answer so far."""
        self.shown = completion
        now = time.monotonic()
        if not self.live or now < self.next:
            return
        out = completion.usage.completion_tokens
        line = f"{completion.model} writes … {out:,} tokens, {completion.usage.tokens_per_second:.1f} tokens/s"
        report = Report("", [*answer(completion, " ▌", AT_ONCE), Paragraph(f"{line} · ■ stops it", "quiet")])
        self.put(report)
        self.next = now + (1.0 if len(report.html) > HEAVY else 0.0)
