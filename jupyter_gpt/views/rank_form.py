"""The ranking form: one prompt at a time with its completions, whose is whose unsaid, until each has its order.

The protocol, all of it:

synced state         what to show: {"heard", "row", "rows", "ranked", "prompt", "texts", "copies", "order", "reason",
                     "undo", "summary", "error"}. `heard` counts the messages taken, so each is answered by a new
                     state; `row` counts from 0 among the prompts that have something to tell apart; `texts` are the
                     completions as shown, number 1 the first, `copies` how often each was sampled; `order` and
                     `reason` are the answer already there (groups of numbers, the best first; null for none);
                     `summary` is the outcome once the form is over and could not be cleared.
front end → kernel   {"type": "ready" | "undo" | "done"}, {"type": "rank", "row": r, "order": [[2], [1, 3]], "reason": ""}
                     and {"type": "go", "row": r}. Each carries "page", a name that the front end gives itself when
                     it is loaded. An answer for another row than the one shown is an old click, and is dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from jupyter_gpt.errors import GPTError
from jupyter_gpt.views.live import static


class RankForm(anywidget.AnyWidget):
    """Asks for the rankings that `ranked` misses. `changed(done)` is called after each answer, on whichever thread the
    kernel hears them.

    Raises GPTError when the package was installed without its built front end.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, ranked: Any, changed: Callable[[bool], None] = lambda done: None) -> None:
        self.ranked, self.changed = ranked, changed
        self._rows = [i for i, question in enumerate(ranked.questions) if question.open]
        self._heard = 0
        self._at = self._next(-1)
        self._lock = threading.RLock()
        self._pages: set[str] = set()
        super().__init__(_esm=static("rank.js"), _css=static("rank.css"), state=self._describe())
        # as in live.py: while another cell blocks, answers shall come by the way that the front end chose
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = lambda data, default: default
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"RankForm({self.ranked.name!r})"

    def view(self) -> dict:
        """Its mime bundle, the view alone: a notebook saved with answers missing holds no text of it for nbval to
        miss."""
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
            self._heard += 1
            try:
                self._hear(content)
            except (OSError, GPTError) as error:  # nothing was kept: whoever answered has to know
                self.state = {**self.state, "heard": self._heard, "error": str(error)}

    def _hear(self, content: dict) -> None:
        what, done, answered = content.get("type"), False, False
        if what == "rank" and content["row"] == self._at:
            self._keep(content["order"], content.get("reason", ""))
            answered, done = True, not self.ranked.missing
            self._at = self._next(self._at)
        elif what == "go":
            self._at = max(0, min(len(self._rows) - 1, content["row"]))
        elif what == "undo":
            row = self.ranked.undo()
            answered = row is not None
            self._at = self._rows.index(row) if answered else self._at
        elif what == "done":
            done = True
        self.state = self._describe(over=done and self.reloaded)
        if answered or done:
            self.changed(done)

    def _keep(self, order: list[list[int]], reason: str) -> None:
        row = self._rows[self._at]
        shown = self.ranked.questions[row].shown
        if sorted(number for group in order for number in group) != list(range(1, len(shown) + 1)):
            raise GPTError(f"a ranking has each of the {len(shown)} completions once")
        self.ranked.rank(row, [[shown[number - 1] for number in group] for group in order], str(reason))

    def _next(self, at: int) -> int:
        """The row after `at` that has no answer yet, from the top again after the last; `at` itself when all have
        one."""
        missing = set(self.ranked.missing)
        places = range(len(self._rows))
        after = [i for i in (*places[at + 1 :], *places[: at + 1]) if self._rows[i] in missing]
        return after[0] if after else max(0, at)

    def _describe(self, over: bool = False) -> dict:
        row = self._rows[self._at]
        question, answer = self.ranked.questions[row], self.ranked.answer(row)
        order = None
        if answer is not None:
            order = [sorted(question.shown.index(place) + 1 for place in group) for group in answer.order]
        ranked = len(self._rows) - len(self.ranked.missing)
        missing = len(self._rows) - ranked
        outcome = f"{ranked} ranked, {missing} missing. Run the cell again for the table."
        return {
            "heard": self._heard,
            "row": self._at,
            "rows": len(self._rows),
            "ranked": ranked,
            "prompt": question.prompt,
            "texts": [question.texts[place] for place in question.shown],
            "copies": [question.completions[place].get("times", 1) for place in question.shown],
            "order": order,
            "reason": answer.reason if answer else "",
            "undo": bool(self.ranked.given),
            "summary": outcome if over else None,
            "error": None,
        }
