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

from collections.abc import Callable
from typing import Any

from jupyter_gpt.notebook.views.differences import differences, mostly
from jupyter_gpt.notebook.views.form import Form


class VoteForm(Form):
    """Asks for the votes that `comparison` misses. `changed(done)` is called after each answer, on whichever
    thread the kernel hears them.

    Raises GPTError when the package was installed without its built front end.
    """

    def __init__(self, comparison: Any, changed: Callable[[bool], None] = lambda done: None) -> None:
        self.comparison = comparison
        rows = [i for i, row in enumerate(comparison.rows) if not row.same]
        super().__init__(comparison.rankings.name, "votes", "vote", comparison, rows, changed)

    def _take(self, content: dict) -> bool:
        choice, row = content["choice"], self._rows[self._at]
        shown = self.comparison.rows[row].shown
        if not 0 <= choice <= len(shown):
            return False
        self.comparison.choose(row, shown[choice - 1] if choice else None)
        return True

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
