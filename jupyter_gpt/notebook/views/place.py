"""Where a running cell shows something: one display, replaced while a person watches, else published once."""

from __future__ import annotations

import sys
from typing import Any

from jupyter_gpt.report.report import Report


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
