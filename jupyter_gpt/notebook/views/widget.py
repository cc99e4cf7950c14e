"""What the package's widgets share: the built front end, a synced state, the pages that show it, clicks that arrive.

A live view is saved as what it shows. In JupyterLab and Notebook no widget is ever an output, because a saved
`widget-view` shows nothing but an error where its kernel is gone, and a trusted notebook falls back to no other format.
The output is static HTML, a snapshot that is renewed while the work goes on (place.py), with a mark in it: `marked`.
The front end draws the widget in the place of an output that holds its mark (labextension/src/widget.ts), which an
anywidget does without being displayed, as soon as it has a model. So a page that is loaded again, a kernel that has
died, a notebook opened later or without trust all show the snapshot, and the live view stands over it again once the
kernel answers.

A page that was loaded after the cell began does not know which output the kernel renews. It is sent the output as a
message, and puts it into the notebook itself: the report too, as soon as it is back.

VS Code and Colab draw no widget that is not displayed; there it is the output, and the report replaces it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any
from uuid import uuid4

import anywidget
import traitlets
from IPython import get_ipython

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views import busy

STATIC = Path(__file__).parent / "static"
LEFT_OPEN = 8  # widgets whose report no page has taken yet
_left: deque = deque()


class Widget(anywidget.AnyWidget):
    """A widget whose script and stylesheet are `static/NAME.js` and `static/NAME.css`.

    Each message of the front end carries "page", a name that the front end gives itself when it is loaded. Raises
    GPTError when the package was installed without its built front end.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    mark = traitlets.Unicode().tag(sync=True)  # in the HTML over which it is drawn, and the id of its comm

    def __init__(self, name: str, state: dict) -> None:
        self._lock = threading.RLock()
        self._pages: set[str] = set()
        self._output: dict | None = None  # the message with the newest snapshot
        self._report: dict | None = None  # and with the report that has taken its place
        self._resend_at, self._resend_after = time.monotonic() + 0.5, 1.0
        mark, script, style = uuid4().hex, static(f"{name}.js"), static(f"{name}.css")
        super().__init__(model_id=mark, mark=mark, _esm=script, _css=style, state=state)
        let_clicks_in(self)
        busy.running_cell(get_ipython())
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

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

    def marked(self, html: str, beside: bool = False) -> str:
        """A snapshot over which the front end draws the widget, or `beside` which: beneath it, both to be seen.

        The mark stands in what nbval folds, where there is such a part. It is a class, which no sanitizer takes away.
        """
        before, varies, after = html.partition("<!--«-->")
        way = " gpt-beside" if beside else ""
        return f'{before}{varies}<span class="gpt-{self.mark}{way}"></span>{after}'

    def renewed(self, data: dict, metadata: dict, last: bool = False) -> None:
        """Have pages that were loaded again renew the output that holds the mark; the `last` time all pages are asked.

        After the last time the widget is closed once a page has answered that its notebook holds the output.
        """
        message = {"type": "output", "data": data, "metadata": metadata, "last": last}
        with self._lock:
            self._output = message
            if last:
                self._report = message
                _left.append(self)
            if last or len(self._pages) > 1:
                self.send(message)
        while len(_left) > LEFT_OPEN:
            close(_left.popleft())

    def _on_message(self, _widget: Any, content: dict, _buffers: list) -> None:
        with self._lock:
            others, page = len(self._pages), content.get("page", "")
            self._pages.add(page)
            if self._report is None:
                if self._output is not None and others and len(self._pages) > others:
                    self.send(self._output)  # this page has the notebook as it was saved
                self.hear(content)
            elif content.get("type") != "kept":
                self.send(self._report)
            elif self in _left:
                _left.remove(self)
                close(self)


def let_clicks_in(widget: anywidget.AnyWidget) -> None:
    """Have what the front end sends arrive while a cell blocks.

    ipykernel 7.4 sends a comm's incoming messages to the shell that last published on it: that is the blocked one then,
    and no click arrives. The one that the front end chose is right.
    """
    comm: Any = widget.comm
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


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
