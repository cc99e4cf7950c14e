"""The tree of a technique while it works: a widget that grows, and in its place one report when it ends.

The protocol, all of it:

kernel → front end   {"type": "nodes", "whole": bool, "nodes": {path: fields}, "gone": [path, …]}: what is new since the
                     last message. A path is the place of a node among its siblings from the root down, "0.2.1"; fields
                     are those of FIELDS, only the changed ones; parents come before their children. If `whole`,
                     `nodes` has all nodes of the tree.
front end → kernel   {"type": "ready" | "heard"}; "ready" asks for all (first render, page reload), "heard"
                     acknowledges it. Each carries "page", a name that the front end gives itself when it is loaded.
synced state         {"title", "line"}: the technique in words, and how far it is.
"""

from __future__ import annotations

import json
import time

from jupyter_gpt.notebook.views.place import Place
from jupyter_gpt.notebook.views.widget import Widget
from jupyter_gpt.prompting.trace import Node, facts, tree
from jupyter_gpt.report.parts import Varies
from jupyter_gpt.report.report import Report

PERIOD = 0.2  # seconds between two messages
FIELDS = ("kind", "label", "facts", "text", "prompt", "result", "note", "pruned")


class TraceTree(Widget):
    """Shows a trace as it grows; `pump(root)` after each change, from the thread that works.

    Raises GPTError when the package was installed without its built front end.
    """

    def __init__(self) -> None:
        self._sent: dict[str, dict] = {}
        self._root: Node | None = None
        self._whole, self._at = True, 0.0
        super().__init__("trace", {"title": "", "line": ""})

    def pump(self, root: Node, at_once: bool = False) -> None:
        """Send what is new, five times a second at most unless it shall go `at_once`."""
        with self._lock:
            self._root = root
            self._whole |= self.unheard()
            if time.monotonic() < self._at and not at_once:
                return
            self._at = time.monotonic() + PERIOD
            self._send_news(root)

    def _send_news(self, root: Node) -> None:
        known = {} if self._whole else self._sent
        found = dict(flat(root))
        nodes = {path: changed for path, fields in found.items() if (changed := news(fields, known.get(path, {})))}
        gone = [path for path in known if path not in found]
        if nodes or gone or self._whole:
            self.send({"type": "nodes", "whole": self._whole, "nodes": nodes, "gone": gone})
        totals = root.totals()
        line = f"{totals.calls:,} calls, {totals.tokens_out:,} tokens written · ■ stops it and keeps what there is"
        self.state = {"title": root.label or root.kind, "line": line}
        self._sent, self._whole = found, False

    def hear(self, content: dict) -> None:
        if content.get("type") == "ready" and self._root is not None:
            self._whole = True
            self._send_news(self._root)


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


class Growing(Place):
    """The display of a trace while it grows: `show` it, then `put` its report. Left by an error it keeps the tree."""

    root: Node | None = None

    def kept(self) -> Report | None:
        if self.root is None or not self.root.totals().tokens_out:
            return None
        return self.so_far()

    def so_far(self) -> Report:
        return Report("", [Varies([tree(self.root)])] if self.root else [], {"view": "trace"})

    def show(self, root: Node) -> None:
        """The trace so far."""
        self.root = root
        if not self.live:
            return
        (self.widget or self.watch(TraceTree(), self.so_far)).pump(root)
        self.renew()

    def shown(self) -> Node | None:
        """The trace, once all of it is shown."""
        if self.widget is not None and self.root is not None:
            self.widget.pump(self.root, at_once=True)
        return self.root

    def put(self, report: Report) -> None:
        self.shown()
        super().put(report)
