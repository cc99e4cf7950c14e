"""The ranking form: one prompt at a time with its completions, whose is whose unsaid, until each has its order.

The protocol, all of it:

synced state         what to show: {"heard", "row", "rows", "ranked", "prompt", "texts", "copies", "order", "reason",
                     "undo", "summary", "error"}. `heard` counts the messages taken, so each is answered by a new
                     state; `row` counts from 0 among the prompts that have something to tell apart; `texts` are the
                     completions as shown, number 1 the first, `copies` how often each was sampled; `order` and
                     `reason` are the answer already there (groups of numbers, the best first; null for none);
                     `summary` is the outcome once the form is over and could not be cleared.
front end → kernel   {"type": "ready" | "undo" | "done"}, {"type": "rank", "row": r, "order": [[2], [1, 3]], "reason":
""}
                     and {"type": "go", "row": r}. Each carries "page", a name that the front end gives itself when
                     it is loaded. An answer for another row than the one shown is an old click, and is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views.form import Form


class RankForm(Form):
    """Asks for the rankings that `ranked` misses. `changed(done)` is called after each answer, on whichever thread the
    kernel hears them.

    Raises GPTError when the package was installed without its built front end.
    """

    def __init__(self, ranked: Any, changed: Callable[[bool], None] = lambda done: None) -> None:
        self.ranked = ranked
        rows = [i for i, question in enumerate(ranked.questions) if question.open]
        super().__init__(ranked.name, "rank", "rank", ranked, rows, changed)

    def _take(self, content: dict) -> bool:
        row, order = self._rows[self._at], content["order"]
        shown = self.ranked.questions[row].shown
        if sorted(number for group in order for number in group) != list(range(1, len(shown) + 1)):
            raise GPTError(f"a ranking has each of the {len(shown)} completions once")
        self.ranked.rank(
            row, [[shown[number - 1] for number in group] for group in order], str(content.get("reason", ""))
        )
        return True

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
