"""The voting form: one row of a comparison at a time, whose text is whose unsaid, until every row has a vote.

The protocol, all of it:

synced state         what to show: {"row", "rows", "voted", "prompt", "texts", "mostly", "chosen", "undo",
                     "summary", "error"}. `row` counts from 0 among the rows that can be voted on; `texts`
                     has, in the order shown, each completion as [text, differs] pieces, `mostly` whether
                     most of it differs; `chosen` is the vote already there (1 for the first shown, 0 a tie,
                     null none); `summary` is the outcome once the form is over and could not be cleared.
front end → kernel   {"type": "ready" | "undo" | "done"}, {"type": "vote", "row": r, "choice": 0 … K} and
                     {"type": "go", "row": r}. Each carries "page", a name that the front end gives itself
                     when it is loaded. A vote for another row than the one shown is an old click, and is
                     dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from jupyter_gpt.errors import GPTError
from jupyter_gpt.views.differences import differences, mostly
from jupyter_gpt.views.live import static


class VoteForm(anywidget.AnyWidget):
    """Asks for the votes that `comparison` misses. `changed(done)` is called after each answer, on whichever
    thread the kernel hears them.

    Raises GPTError when the package was installed without its built front end.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, comparison: Any, changed: Callable[[bool], None] = lambda done: None) -> None:
        self.comparison, self.changed = comparison, changed
        self._rows = [i for i, row in enumerate(comparison.rows) if not row.same]
        self._at = self._next(-1)
        self._lock = threading.RLock()
        self._pages: set[str] = set()
        super().__init__(_esm=static("votes.js"), _css=static("votes.css"), state=self._describe())
        # as in live.py: while another cell blocks, answers shall come by the way that the front end chose
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = lambda data, default: default
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"VoteForm({self.comparison.rankings.name!r})"

    def view(self) -> dict:
        """Its mime bundle, the view alone: a notebook saved with votes missing holds no text of it for nbval
        to miss."""
        data = self._repr_mimebundle_()
        data = data[0] if isinstance(data, tuple) else data
        return {kind: value for kind, value in data.items() if kind != "text/plain"}

    @property
    def reloaded(self) -> bool:
        """Whether the page was loaded again; JupyterLab then forgets which output a display id names."""
        return len(self._pages) > 1

    def _on_message(self, _widget: Any, content: dict, _buffers: list) -> None:
        with self._lock:
            self._pages.add(content.get("page", ""))
            try:
                self._hear(content)
            except (OSError, GPTError) as error:  # no vote was kept: whoever gave it has to know
                self.state = {**self.state, "error": str(error)}

    def _hear(self, content: dict) -> None:
        what, done, voted = content.get("type"), False, False
        if what == "vote" and content["row"] == self._at:
            voted = self._vote(content["choice"])
            done = voted and not self.comparison.missing
            self._at = self._next(self._at)
        elif what == "go":
            self._at = max(0, min(len(self._rows) - 1, content["row"]))
        elif what == "undo":
            row = self.comparison.undo()
            voted = row is not None
            self._at = self._rows.index(row) if voted else self._at
        elif what == "done":
            done = True
        self.state = self._describe(over=done and self.reloaded)
        if voted or done:
            self.changed(done)

    def _vote(self, choice: int) -> bool:
        row = self._rows[self._at]
        shown = self.comparison.rows[row].shown
        if not 0 <= choice <= len(shown):
            return False
        self.comparison.choose(row, shown[choice - 1] if choice else None)
        return True

    def _next(self, at: int) -> int:
        """The row after `at` that has no vote yet, from the top again after the last; `at` itself when all
        have one."""
        missing = set(self.comparison.missing)
        places = range(len(self._rows))
        after = [i for i in (*places[at + 1 :], *places[: at + 1]) if self._rows[i] in missing]
        return after[0] if after else max(0, at)

    def _describe(self, over: bool = False) -> dict:
        row = self._rows[self._at]
        shown, choice = self.comparison.rows[row].shown, self.comparison.choices[row]
        pieces = differences(self.comparison.rows[row].texts)
        chosen = None if choice is None else shown.index(choice) + 1 if isinstance(choice, int) else 0
        tally = ", ".join(f"{name} {count}" for name, count in self.comparison.tally.items())
        return {
            "row": self._at,
            "rows": len(self._rows),
            "voted": len(self._rows) - len(self.comparison.missing),
            "prompt": self.comparison.rows[row].prompt,
            "texts": [pieces[place] for place in shown],
            "mostly": [mostly(pieces[place]) for place in shown],
            "chosen": chosen,
            "undo": bool(self.comparison.given),
            "summary": f"{tally}. Run the cell again for the table." if over else None,
            "error": None,
        }
