"""Where a running cell shows something: one display, replaced while a person watches, else published once."""

from __future__ import annotations

import sys
import time
from typing import Any

from jupyter_gpt.inference.completion_report import answer, completion_report
from jupyter_gpt.report.parts import Paragraph
from jupyter_gpt.report.report import Report

AT_ONCE = 8  # samples drawn while they are written
HEAVY = 50_000  # characters of HTML from which on the display is updated less often


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


class Place:
    """One display of the running cell. Left by an error it shows what `kept` gives, or nothing."""

    def __init__(self):
        self.live: bool = is_live()
        self.handle: Any = None
        self.widget: Any = None

    def __enter__(self):
        return self

    def __exit__(self, error, *_) -> None:
        if error is None:
            return
        if (report := self.kept()) is not None:
            self.put(report)
        elif self.handle is not None:
            self.handle.update({}, raw=True)
            self._close()

    def kept(self) -> Report | None:
        """What stays when an error ends the cell."""
        return None

    def put(self, report: Report) -> None:
        """Shows a report in the place of what was shown before."""
        from IPython.display import display

        data, metadata = report._repr_mimebundle_()
        if self.handle is None:
            self.handle = display(data, raw=True, metadata=metadata, display_id=self.live)
        else:
            self.handle.update(data, raw=True, metadata=metadata)
        if self.widget is not None:
            from jupyter_gpt.notebook.views.widget import leave

            leave(self.widget)
            self.widget = None

    def watch(self, widget: Any) -> Any:
        """Shows a widget until a report takes its place."""
        from IPython.display import display

        self.widget, self.handle = widget, display(widget, display_id=True)
        return widget

    def _close(self) -> None:
        if self.widget is not None:
            from jupyter_gpt.notebook.views.widget import close

            close(self.widget)
            self.widget = None


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
