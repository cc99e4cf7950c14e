"""What the package's widgets share: the built front end, a synced state, the pages that show it, clicks that arrive."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from jupyter_gpt.errors import GPTError

STATIC = Path(__file__).parent / "static"
LEFT_OPEN = 4  # widgets of pages that were loaded again
_left: deque = deque()


class Widget(anywidget.AnyWidget):
    """A widget whose script and stylesheet are `static/NAME.js` and `static/NAME.css`.

    Each message of the front end carries "page", a name that the front end gives itself when it is loaded. Raises
    GPTError when the package was installed without its built front end.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, name: str, state: dict) -> None:
        self._lock = threading.RLock()
        self._pages: set[str] = set()
        self._resend_at, self._resend_after = time.monotonic() + 0.5, 1.0
        super().__init__(_esm=static(f"{name}.js"), _css=static(f"{name}.css"), state=state)
        let_clicks_in(self)
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def reloaded(self) -> bool:
        """Whether the page was loaded again; JupyterLab then forgets which output a display id names."""
        return len(self._pages) > 1

    def hear(self, content: dict) -> None:
        """A message of the front end, on whichever thread the kernel receives it."""

    def unheard(self) -> bool:
        """Whether to send everything again, because no page has answered yet: after 0.5, 1, 2, 4 ... seconds.

        A kernel that takes no messages while a cell runs (ipykernel 6) never hears "ready", nor does any before the
        front end has opened its subshell; and what comes before the front end's script has loaded is lost.
        """
        if self._pages or time.monotonic() < self._resend_at:
            return False
        self._resend_at += self._resend_after
        self._resend_after *= 2
        return True

    def _on_message(self, _widget: Any, content: dict, _buffers: list) -> None:
        with self._lock:
            self._pages.add(content.get("page", ""))
            self.hear(content)


def let_clicks_in(widget: anywidget.AnyWidget) -> None:
    """Have what the front end sends arrive while a cell blocks.

    ipykernel 7.4 sends a comm's incoming messages to the shell that last published on it: that is the blocked one then,
    and no click arrives. The one that the front end chose is right.
    """
    comm: Any = widget.comm
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


def leave(widget: Any) -> None:
    """Close a widget whose report has taken its place.

    On a page that was loaded again the report found no place, and the widget is all there is to see: it stays open, but
    of such widgets only the last `LEFT_OPEN`.
    """
    if not widget.reloaded:
        close(widget)
        return
    if widget not in _left:
        _left.append(widget)
    while len(_left) > LEFT_OPEN:
        close(_left.popleft())


def close(widget: Any) -> None:
    """Close a widget and its layout, which has a comm of its own that closing the widget leaves open."""
    widget.layout.close()
    widget.close()


def static(name: str) -> str:
    """A file of the built front end. Raises GPTError when the package was installed without it."""
    try:
        return (STATIC / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GPTError(
            f"the live view was not built ({name} is missing): install the package again with pip install ."
        ) from None
