"""Where `%%rank`, `%%compare` and `%gpt arena` show their task: the report, and beside it the form."""

from __future__ import annotations

from jupyter_gpt.notebook.views.place import Place
from jupyter_gpt.report.parts import Paragraph
from jupyter_gpt.report.report import Report
from jupyter_gpt.stages.ranking_task import RankingTask, ranking_report


class Page(Place):
    """Where a task is shown: one line while models write or judge, then the results, and beside them the form while a
    person is there and rankings are missing.

    Nothing here waits for a person; with nobody there the page is published once. An error takes its line back.
    """

    def working(self, what: str, done: int, total: int, tokens: int) -> None:
        """Shows what is being done, for how many of the prompts it is done, and the tokens of the first completion."""
        if not self.live:
            return
        line = f"{what}: {done} of {total} prompts" + (f", token {tokens:,}" if tokens else "") + " …"
        self.put(Report("", [Paragraph(line, "quiet")]))

    def show(self, task: RankingTask, form: bool = True) -> None:
        """The results, and with `form` the missing rankings asked for beside them."""
        if not (form and self.live and task.missing):
            self.put(ranking_report(task))
            return
        from jupyter_gpt.notebook.views.rank_form import RankForm

        def changed(done: bool) -> None:
            self.put(ranking_report(task)) if done else self.renew(at_once=True)

        self.watch(RankForm(task, changed), lambda: ranking_report(task, blind=True), beside=True)
