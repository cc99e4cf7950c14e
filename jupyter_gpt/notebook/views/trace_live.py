"""The tree of a technique while it works: a widget that grows, and in its place one report when it ends.

The protocol, all of it:

kernel → front end   {"type": "nodes", "whole": bool, "nodes": {path: fields}, "gone": [path, …]}: what is new since the
                     last message. A path is the place of a node among its siblings from the root down, "0.2.1"; fields
                     are those of FIELDS, only the changed ones; parents stand before their children. `whole`: forget
                     what you have.
front end → kernel   {"type": "ready" | "heard"}; "ready" asks for all (first render, page reload). Each carries "page",
                     a name that the front end gives itself when it is loaded.
synced state         {"title", "line"}: the technique in words, and how far it is.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import anywidget
import traitlets

from jupyter_gpt.notebook.views.live import close, let_clicks_in, static
from jupyter_gpt.notebook.views.trace import facts, tree
from jupyter_gpt.prompting.trace import Node
from jupyter_gpt.report.parts import Varies
from jupyter_gpt.report.report import Report

PERIOD = 0.2  # seconds between two messages
FIELDS = ("kind", "label", "facts", "text", "prompt", "result", "note", "pruned")


class TraceTree(anywidget.AnyWidget):
    """Shows a trace as it grows; `pump(root)` after each change, from the thread that works.

    Raises GPTError when the package was installed without its built front end.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: set[str] = set()
        self._sent: dict[str, dict] = {}
        self._root: Node | None = None
        self._whole = True
        self._at = 0.0
        self._resend_at, self._resend_after = time.monotonic() + 0.5, 0.5
        super().__init__(_esm=static("trace.js"), _css=static("trace.css"), state={"title": "", "line": ""})
        let_clicks_in(self)
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return "TraceTree()"

    @property
    def reloaded(self) -> bool:
        """Whether the page was loaded again; JupyterLab then forgets which output a display id names."""
        return len(self._pages) > 1

    def pump(self, root: Node, at_once: bool = False) -> None:
        """Send what is new, five times a second at most unless it shall go `at_once`."""
        with self._lock:
            self._root = root
            now = time.monotonic()
            if not self._pages and now >= self._resend_at:  # nobody was heard yet: what was sent may be lost
                self._resend_after *= 2
                self._resend_at, self._whole = now + self._resend_after, True
            if now < self._at and not at_once:
                return
            self._at = now + PERIOD
            self._send_news()

    def _send_news(self) -> None:
        known = {} if self._whole else self._sent
        found = dict(flat(self._root))
        nodes = {path: changed for path, fields in found.items() if (changed := news(fields, known.get(path, {})))}
        gone = [path for path in known if path not in found]
        if nodes or gone or self._whole:
            self.send({"type": "nodes", "whole": self._whole, "nodes": nodes, "gone": gone})
        totals = self._root.totals()
        line = f"{totals.calls:,} calls, {totals.tokens_out:,} tokens written · ■ stops it and keeps what there is"
        self.state = {"title": self._root.label or self._root.kind, "line": line}
        self._sent, self._whole = found, False

    def _on_message(self, _widget: Any, content: dict, _buffers: list) -> None:
        with self._lock:
            self._pages.add(content.get("page", ""))
            if content.get("type") == "ready" and self._root is not None:
                self._whole = True
                self._send_news()


def flat(node: Node, path: str = "0"):
    """Each node's fields by its path, parents first."""
    result = node.result if isinstance(node.result, str | None) else json.dumps(node.result, ensure_ascii=False)
    yield (
        path,
        {
            "kind": node.kind,
            "label": node.label,
            "facts": facts(node, node.totals()),
            "text": node.text,
            "prompt": node.prompt,
            "result": result or "",
            "note": node.note,
            "pruned": node.pruned,
        },
    )
    for i, child in enumerate(node.children):
        yield from flat(child, f"{path}.{i}")


def news(fields: dict, known: dict) -> dict:
    """The fields that have changed."""
    return {name: value for name, value in fields.items() if known.get(name) != value}


class Growing:
    """`show(root)` the trace as it grows, then `end` with the bundle; with nobody there to watch, only the end is
    published. Left by an error it keeps the tree that there was.
    """

    def __init__(self):
        from jupyter_gpt.notebook.views.follow import is_live

        self.live, self.handle, self.widget, self.root = is_live(), None, None, None

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, error, *_) -> None:
        if error is not None and self.root is not None and self.root.totals().tokens_out:
            self.end(Report("", [Varies([tree(self.root)])], {"view": "trace"}))
        elif error is not None and self.handle is not None:
            self.handle.update({}, raw=True)
            close(self.widget)

    def show(self, root: Node) -> None:
        """The trace so far."""
        self.root = root
        if not self.live:
            return
        if self.widget is None:
            from IPython.display import display

            self.widget = TraceTree()
            self.handle = display(self.widget, display_id=True)
        self.widget.pump(root)

    def end(self, report: Report) -> None:
        """The report, in the place of what was shown."""
        from IPython.display import display

        mime, metadata = report._repr_mimebundle_()
        if self.handle is None:
            display(mime, raw=True, metadata=metadata)
            return
        self.widget.pump(self.root, at_once=True)
        self.handle.update(mime, raw=True, metadata=metadata)
        if not self.widget.reloaded:  # else the report found no place, and the widget is all there is to see
            close(self.widget)
