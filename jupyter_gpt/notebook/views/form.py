"""A form that waits for a person: a row at a time, each answered, skipped, gone back to or undone, until all have
answers.

What votes and rankings have in common: the way a click takes to the kernel, which row is next, what an undo brings
back, and that an answer which could not be kept is told to whoever gave it. The messages are described in `votes.py`
and
`rank_form.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import anywidget
import traitlets

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views.live import let_clicks_in, static


class Form(anywidget.AnyWidget):
    """Asks for the answers that `asked` misses.

    `asked` has `missing` (rows without an answer), `given` and `undo()`; `rows` are those that can be answered,
    `answer` is the type of the message that answers one. `changed(done)` is called after each answer, on whichever
    thread the
    kernel hears them. A subclass has `_take(content)`, whether it was an answer and is kept, and `_describe(over)`.

    Raises GPTError when the package was installed without its built front end.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self, name: str, script: str, answer: str, asked: Any, rows: Sequence[int], changed: Callable[[bool], None]
    ):
        self._name, self._answer, self._asked, self._rows, self.changed = name, answer, asked, list(rows), changed
        self._heard = 0
        self._at = self._next(-1)
        self._lock = threading.RLock()
        self._pages: set[str] = set()
        super().__init__(_esm=static(f"{script}.js"), _css=static(f"{script}.css"), state=self._describe())
        let_clicks_in(self)  # also while another cell blocks
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

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
                heard = {"heard": self._heard} if "heard" in self.state else {}
                self.state = {**self.state, **heard, "error": str(error)}

    def _hear(self, content: dict) -> None:
        what, done, answered = content.get("type"), False, False
        if what == self._answer and content["row"] == self._at:
            answered = self._take(content)
            done = answered and not self._asked.missing
            self._at = self._next(self._at)
        elif what == "go":
            self._at = max(0, min(len(self._rows) - 1, content["row"]))
        elif what == "undo":
            row = self._asked.undo()
            answered = row is not None
            self._at = self._rows.index(row) if answered else self._at
        elif what == "done":
            done = True
        self.state = self._describe(over=done and self.reloaded)
        if answered or done:
            self.changed(done)

    def _next(self, at: int) -> int:
        """The row after `at` that has no answer yet, from the top again after the last; `at` itself when all have
        one."""
        missing = set(self._asked.missing)
        places = range(len(self._rows))
        after = [i for i in (*places[at + 1 :], *places[: at + 1]) if self._rows[i] in missing]
        return after[0] if after else max(0, at)
