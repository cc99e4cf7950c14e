"""The tree of a technique while it works: a display that grows, and one static bundle when it ends."""

from __future__ import annotations

import time

from jupyter_gpt.prompting.trace import Node
from jupyter_gpt.views.bundle import MIME, Bundle, plain, quoted
from jupyter_gpt.views.completion import QUIET
from jupyter_gpt.views.trace import tree_html, tree_text

PERIOD = 0.25  # seconds between two looks


class Growing:
    """`show(root)` the trace as it grows, then `end` with the bundle; with nobody there to watch, only the end is
    published. Left by an error it keeps the tree that there was.
    """

    def __init__(self):
        from jupyter_gpt.views.follow import is_live

        self.live, self.handle, self.root, self.next = is_live(), None, None, 0.0

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, error, *_) -> None:
        if error is not None and self.root is not None and self.root.totals().tokens_out:
            self.end(Bundle(quoted(tree_text(self.root)), f"<!--«-->{tree_html(self.root)}<!--»-->", {"view": "trace"}))
        elif error is not None and self.handle is not None:
            self.handle.update({}, raw=True)

    def show(self, root: Node) -> None:
        """The trace so far."""
        self.root = root
        now = time.monotonic()
        if not self.live or now < self.next:
            return
        totals = root.totals()
        line = f"{totals.calls:,} calls, {totals.tokens_out:,} tokens written"
        html = f'{tree_html(root)}<p style="{QUIET}">{plain(line)} · ■ stops it and keeps what there is</p>'
        self._put({"text/plain": f"{tree_text(root)}\n{line}", "text/html": html}, {})
        self.next = now + PERIOD + 5 * (time.monotonic() - now)  # a tree that takes long to draw is drawn more rarely

    def end(self, bundle: Bundle) -> None:
        """The bundle, in the place of what was shown."""
        self._put(bundle.mime(), {MIME: bundle.metadata})

    def _put(self, mime: dict, metadata: dict) -> None:
        from IPython.display import display

        if self.handle is not None:
            self.handle.update(mime, raw=True, metadata=metadata)
        elif self.live:
            self.handle = display(mime, raw=True, metadata=metadata, display_id=True)
        else:
            display(mime, raw=True, metadata=metadata)
