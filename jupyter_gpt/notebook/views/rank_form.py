"""The ranking form: one prompt at a time with its completions, models unnamed, until each prompt has a ranking.

The protocol:

synced state         what to show: {"heard", "answers", "row", "rows", "ranked", "best_only", "prompt", "texts",
                     "mostly", "copies", "order", "reason", "undo", "error"}. `heard` counts the messages received, so
                     that each is answered by a new state; `answers` is the "id" of the one answered, null if it had
                     none; `row` counts from 0 among the questions that can be ranked;
                     `best_only` is whether only the best completion is asked for. `texts` are the completions as shown,
                     number 1 the first, in [text, differs] pieces; `mostly` is whether most of a text differs, `copies`
                     how often each was sampled. `order` and `reason` are the ranking already there (groups of numbers,
                     the best first; null for none).
front end → kernel   {"type": "ready" | "undo" | "done"}, {"type": "go", "row": r} and
                     {"type": "rank", "row": r, "order": [[2], [1, 3]], "reason": ""}. Each carries "page", a name that
                     the front end gives itself when it is loaded; what a person asked for an "id" too. It is sent
                     again, with the same id, while it is not answered, and is done once. A ranking of another row than
                     the one shown is an old click, and is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.views.widget import Widget
from jupyter_gpt.report.differences import differences, mostly
from jupyter_gpt.stages.ranking_task import RankingTask


class RankForm(Widget):
    """Asks for the rankings that `task` misses. `changed(done)` is called after each, on whichever thread the kernel
    receives messages.

    Raises GPTError when the package was installed without its built front end.
    """

    def __init__(self, task: RankingTask, changed: Callable[[bool], None] = lambda done: None) -> None:
        self.task, self.changed = task, changed
        self._rows = [i for i, question in enumerate(task.questions) if question.open]
        self._heard, self._answers = 0, None
        self._taken: set[float] = set()  # the ids of what was done
        self._row = self._next(-1)
        super().__init__("rank", self._describe())

    def __repr__(self) -> str:
        return f"RankForm({self.task.name!r})"

    def hear(self, content: dict) -> None:
        self._heard, self._answers = self._heard + 1, content.get("id")
        try:
            self._handle({"type": "ready"} if self._answers in self._taken else content)
            if self._answers is not None:
                self._taken.add(self._answers)
        except (OSError, GPTError) as error:  # nothing was saved: the annotator has to know
            self.state = {**self.state, "heard": self._heard, "answers": self._answers, "error": str(error)}

    def _handle(self, content: dict) -> None:
        kind, done, answered = content.get("type"), False, False
        if kind == "rank" and content["row"] == self._row:
            self._rank(content["order"], str(content.get("reason", "")))
            answered, done = True, not self.task.missing
            self._row = self._next(self._row)
        elif kind == "go":
            self._row = max(0, min(len(self._rows) - 1, content["row"]))
        elif kind == "undo":
            if (question := self.task.undo()) is not None:
                self._row, answered = self._rows.index(question), True
        elif kind == "done":
            done = True
        self.state = self._describe()
        if answered or done:
            self.changed(done)

    def _rank(self, order: list[list[int]], reason: str) -> None:
        question = self._rows[self._row]
        shown = self.task.questions[question].shown
        if sorted(number for group in order for number in group) != list(range(1, len(shown) + 1)):
            raise GPTError(f"a ranking has each of the {len(shown)} completions once")
        self.task.rank(question, [sorted(shown[number - 1] for number in group) for group in order], reason)

    def _next(self, row: int) -> int:
        """The next row without a ranking, from the top again after the last; `row` itself when all have one."""
        missing, rows = set(self.task.missing), range(len(self._rows))
        after = [i for i in (*rows[row + 1 :], *rows[: row + 1]) if self._rows[i] in missing]
        return after[0] if after else max(0, row)

    def _describe(self) -> dict:
        i = self._rows[self._row]
        question, answer, best_only = self.task.questions[i], self.task.answer(i), self.task.best_only
        texts = (
            differences(question.texts) if best_only else [[(text, False)] if text else [] for text in question.texts]
        )
        order = None
        if answer is not None:
            order = [sorted(question.shown.index(place) + 1 for place in group) for group in answer.order]
        return {
            "heard": self._heard,
            "answers": self._answers,
            "row": self._row,
            "rows": len(self._rows),
            "ranked": len(self._rows) - len(self.task.missing),
            "best_only": best_only,
            "prompt": question.prompt,
            "texts": [texts[place] for place in question.shown],
            "mostly": [mostly(texts[place]) for place in question.shown],
            "copies": [question.completions[place].get("times", 1) for place in question.shown],
            "order": order,
            "reason": answer.reason if answer else "",
            "undo": bool(self.task.history),
            "error": None,
        }
