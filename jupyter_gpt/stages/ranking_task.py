"""A ranking task: questions with completions to rank, the rankings given so far, and their report.

`%%rank`, `%%compare` and `%gpt arena` are this task with different questions. While a person ranks, the report is
blind: completions are folded and models are unnamed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.metrics import kendalls_w, ranks
from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.inference.completion_report import settings
from jupyter_gpt.report.differences import mostly
from jupyter_gpt.report.parts import Folded, Inline, Paragraph, Part, Span, Table, Varies, bold, quiet
from jupyter_gpt.report.report import Report, Shown
from jupyter_gpt.stages.rankings import Question, Ranking, Rankings

TIE = "tie"
SHOWN = 4  # questions in a report; the others are behind a click
MOST = 200  # and all that it has: those of imported data may be many thousands
GREEN = "rgba(0,158,115,0.22)"
ORANGE = "rgba(224,140,50,{})"


@dataclass(frozen=True)
class Agreement:
    """Kendall's W, the mean over the `prompts` with several annotators; `chance` is its mean for random orders."""

    w: float
    chance: float
    prompts: int
    labellers: tuple[str, ...]


class RankingTask(Shown):
    """Questions under a name, and their rankings, which are read from and written to disk at each access.

    best_only: whether the form asks for the best completion alone, not for a whole order.
    by: whose rankings are needed.  anybody: whether those of another annotator count too.
    notes: warnings about the files.  judged: for each question what a judging model was sent and what it replied.
    """

    kind = "rank"
    best_only = False

    def __init__(
        self,
        rankings: Rankings,
        questions: Sequence[Question],
        models: Sequence[str],
        options: dict | None = None,
        *,
        by: str = "person",
        anybody: bool = False,
        notes: Sequence[str] = (),
    ):
        self.rankings, self.questions, self.models = rankings, list(questions), list(models)
        self.options, self.by, self.anybody = options or {}, by, anybody
        self.notes = [*filter(None, [rankings.torn]), *notes]
        self.judged: dict[int, list[dict]] = {}
        self.history: list[tuple[int, str, Ranking | None]] = []  # question, annotator, replaced ranking: for `undo`

    @property
    def name(self) -> str:
        return self.rankings.name

    @property
    def rows(self) -> list[Question]:
        return self.questions

    @property
    def answers(self) -> list[dict[str, Ranking]]:
        """For each question its rankings by annotator, oldest first."""
        answers: list[dict[str, Ranking]] = [{} for _ in self.questions]
        places = {question.key: i for i, question in enumerate(self.questions)}
        for ranking in self.rankings.read():
            if ranking.key in places:
                of_question = answers[places[ranking.key]]
                of_question.pop(ranking.by, None)
                of_question[ranking.by] = ranking
        return answers

    def accepted(self) -> list[Ranking | None]:
        """For each question the ranking by `self.by`, else, with `anybody`, the last one by another."""
        return [a.get(self.by) or (list(a.values())[-1] if self.anybody and a else None) for a in self.answers]

    def answer(self, i: int) -> Ranking | None:
        """The accepted ranking of question `i`."""
        return self.accepted()[i]

    @property
    def missing(self) -> list[int]:
        """The questions without a ranking, where the completions differ."""
        pairs = enumerate(zip(self.questions, self.accepted(), strict=True))
        return [i for i, (question, answer) in pairs if question.open and answer is None]

    @property
    def choices(self) -> list[int | str | None]:
        """For each question the place of the single best completion, `tie`, or None where there is no ranking."""
        answers = self.accepted()
        return [None if a is None else a.order[0][0] if len(a.order[0]) == 1 else TIE for a in answers]

    @property
    def labellers(self) -> dict[str, int]:
        """How many of the questions each annotator ranked."""
        return dict(Counter(by for answers in self.answers for by in answers))

    @property
    def agreement(self) -> Agreement | None:
        """The annotators' agreement; None where no prompt has two rankings that are not all ties."""
        shared = [answers for answers in self.answers if len(answers) > 1]
        values = [(kendalls_w([r.order for r in answers.values()]), len(answers)) for answers in shared]
        defined = [(w, m) for w, m in values if w is not None]
        if not defined:
            return None
        n, who = len(defined), dict.fromkeys(by for answers in shared for by in answers)
        return Agreement(sum(w for w, _ in defined) / n, sum(1 / m for _, m in defined) / n, n, tuple(who))

    @property
    def table(self):
        """A DataFrame, one row per completion: prompt, model, seed, text, and each annotator's ranks (1 is best)."""
        import pandas

        rows = []
        for question, answers in zip(self.questions, self.answers, strict=True):
            columns = {by: ranks(ranking.order) for by, ranking in answers.items()}
            for place, entry in enumerate(question.entries):
                rows.append({"prompt": question.prompt, **entry, **{by: of[place] for by, of in columns.items()}})
        return pandas.DataFrame(rows, columns=["prompt", "model", "seed", "text", *self.labellers])

    def rank(self, i: int, order: Sequence[Sequence[int]], reason: str = "", by: str | None = None) -> None:
        """Rank question `i`: groups of places in its completions, the best first, those of a group tied.

        Replaces an earlier ranking by the same annotator. Raises GPTError for no such question, and for an order that
        does not name each completion once.
        """
        if not 0 <= i < len(self.questions):
            raise GPTError(f"there is no question {i}: {self.name} has {len(self.questions)}, counted from 0")
        question, by = self.questions[i], by or self.by
        if sorted(place for group in order for place in group) != list(range(len(question.completions))):
            raise GPTError(
                f"an order names each of the {len(question.completions)} completions once, not {order!r:.60}"
            )
        groups = tuple(tuple(group) for group in order if group)
        before = self.rankings.latest(by).get(question.key)
        entries, shown, now = question.entries, question.shown, time.time()
        self.rankings.put(Ranking(question.prompt, entries, groups, shown, by, now, reason.strip(), question.messages))
        self.history.append((i, by, before))

    def choose(self, i: int, place: int | None, by: str | None = None) -> None:
        """Rank one completion of question `i` above the others, which are tied; None ties all."""
        everything = range(len(self.questions[i].completions)) if 0 <= i < len(self.questions) else ()
        rest = [each for each in everything if each != place]
        self.rank(i, [rest] if place is None else [[place], rest], by=by)

    def undo(self) -> int | None:
        """Withdraw the last ranking given here and restore what it replaced; returns its question, None for none."""
        if not self.history:
            return None
        i, by, before = self.history.pop()
        if before is None:
            self.rankings.withdraw(self.questions[i].key, by)
        else:
            self.rankings.put(before)
        return i

    @property
    def tally(self) -> Mapping[str, object]:
        """In a comparison the votes, in an arena the rating of each model."""
        return {}

    @property
    def counts(self) -> str:
        missing = len(self.missing)
        return f"{sum(question.open for question in self.questions) - missing} ranked, {missing} missing"

    @property
    def outcome(self) -> str:
        """The state of the task in a line."""
        return "; ".join(filter(None, [self.counts, ", ".join(f"{name} {n}" for name, n in self.tally.items())]))

    @property
    def legend(self) -> str:
        """What the colours of the report mean."""
        return ""

    @property
    def title(self) -> str:
        return f"rankings {self.name}"

    @property
    def report(self) -> Report:
        return ranking_report(self)

    def body(self, blind: bool) -> list[Part]:
        """The completions of each prompt and their ranks; `blind` as of `ranking_report`."""
        rows = [
            [Paragraph(bold(prompt)), Table((), ranked(self, question, answer, blind), "ll", wrap=True)]
            for prompt, question, answer in self.numbered()
        ]
        return folded(rows, lambda some: [part for row in some for part in row], blind or self.kind == "arena")

    def numbered(self) -> list[tuple[str, Question, Ranking | None]]:
        """The prompt of each question with its number and, where it has several questions, its seed; the question; the
        accepted ranking.
        """
        several = self.best_only and self.options.get("samples", 1) > 1
        return [
            (f"{i}. {q.prompt}" + (f" (seed {q.completions[0]['seed']})" if several else ""), q, answer)
            for i, (q, answer) in enumerate(zip(self.questions, self.accepted(), strict=True), start=1)
        ]

    def as_dict(self) -> dict:
        """Everything as JSON: each question with its completions and its rankings."""
        agreement = self.agreement
        return {
            "questions": [
                {
                    "prompt": q.prompt,
                    "completions": [dict(each) for each in q.completions],
                    "sent": [list(pair) for pair in q.sent],
                    "answers": [
                        {"by": r.by, "order": [list(group) for group in r.order], "reason": r.reason, "time": r.time}
                        for r in answers.values()
                    ],
                    "judged": self.judged.get(i, []),
                }
                for i, (q, answers) in enumerate(zip(self.questions, self.answers, strict=True))
            ],
            "missing": len(self.missing),
            "tally": dict(self.tally),
            "agreement": agreement and {"w": agreement.w, "chance": agreement.chance, "prompts": agreement.prompts},
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return f"<rankings {self.name}: {len(self.questions)} prompts, {len(self.missing)} not ranked>"


def folded(rows: Sequence, parts: Callable[[Sequence], list[Part]], whole: bool) -> list[Part]:
    """The `parts` of the rows: the `whole` behind a click, else those beyond the first few."""
    if whole:
        return [Folded("completions and rankings", parts(rows[:MOST]), text=True)]
    more: list[Part] = []
    if len(rows) > SHOWN:
        more = [Folded(f"{min(len(rows), MOST) - SHOWN} more", parts(rows[SHOWN:MOST]), text=True)]
    if len(rows) > MOST:
        more.append(Paragraph(f"{len(rows) - MOST:,} more are not shown", "quiet"))
    return [*parts(rows[:SHOWN]), *more]


def ranking_report(task: RankingTask, *, blind: bool = False) -> Report:
    """The report of a task as it is now. `blind` leaves out which model wrote a completion without a ranking, and who
    leads.
    """
    parts = [
        Paragraph(subtitle(task)),
        Paragraph(Varies(status_line(task, blind)), "quiet"),
        Varies(task.body(blind)),
        Folded("exact prompts", [Varies(exact_prompts(task))]),
    ]
    data = {
        "view": task.kind,
        "rankings": task.name,
        "models": task.models,
        "prompts": sorted({q.prompt for q in task.questions}),
        "sampling": sampling(task).as_dict(),
    }
    known = task.as_dict()
    return Report(task.title, parts, data, {**known, "questions": known["questions"][:MOST]})


def subtitle(task: RankingTask) -> str:
    """The prompts, models and settings, the same on every machine."""
    count, models = len({q.prompt for q in task.questions}), ", ".join(task.models)
    line = f"{count} prompt{'s' * (count != 1)}"
    if not task.options or not models:
        return f"{line}, completions of {models}" if models else line
    how = sampling(task)
    each = f", {how.samples} completion{'s' * (how.samples != 1)} each of {models}" if not task.best_only else ""
    return f"{line}{each}, {settings(how)}" + (" and up" if how.samples > 1 else "")


def sampling(task: RankingTask) -> Sampling:
    """The settings that made the completions."""
    return Sampling(**{name: value for name, value in task.options.items() if name in Sampling.model_fields})


def status_line(task: RankingTask, blind: bool = False) -> str:
    """How many prompts are ranked and how many are not, by whom, and the agreement of the annotators."""
    same = sum(not question.open for question in task.questions)
    parts = [task.counts if blind else task.outcome]
    if same:
        parts.append(f"{same} with identical completions")
    if task.labellers:
        parts.append("by " + ", ".join(f"{by} {count}" for by, count in task.labellers.items()))
    agreement = task.agreement
    if agreement is not None and not blind:
        parts.append(
            f"agreement on {agreement.prompts} prompt{'s' * (agreement.prompts != 1)}: Kendall's W "
            f"{agreement.w:.2f} (1 is perfect, {agreement.chance:.2f} is chance)"
        )
    elsewhere = len(task.rankings) - sum(task.labellers.values())
    if elsewhere:
        parts.append(f"{elsewhere} more of other completions in the same file")
    return " · ".join(filter(None, [*parts, task.legend, *task.notes]))


def ranked(task: RankingTask, question: Question, answer: Ranking | None, blind: bool) -> list[tuple[Inline, Inline]]:
    """(rank, completion) of one prompt, best first: `1`, `2=`, `2=`, `4`; as shown, with `–`, without a ranking."""
    rows: list[tuple[Inline, Inline]] = []
    before = 0
    for group in answer.order if answer else [question.shown]:
        rank = f"{before + 1}{'=' * (len(group) > 1)}" if answer else "–"
        for place in group:
            each = question.completions[place]
            note = [each["model"]] if len(task.models) > 1 and not (blind and answer is None) else []
            note += [f"sampled {each['times']} times"] if each.get("times", 1) > 1 else []
            badge = Span(rank, "bold", GREEN) if answer and not before else rank
            text = written(each, [(each["text"].strip(), False)])
            rows.append((badge, [*text, quiet(f" ({', '.join(note)})")] if note else text))
        before += len(group)
    if answer and answer.reason:
        rows.append(("", quiet(f"{answer.by}: {answer.reason}")))
    if answer is None and question.open:
        rows.append(("", quiet("not ranked yet")))
    return rows


def written(completion: dict, pieces: Sequence[tuple[str, bool]]) -> list[Inline]:
    tint = ORANGE.format(0.09 if mostly(pieces) else 0.24)
    shown: list[Inline] = [Span(text, tint=tint) if differs else text for text, differs in pieces if text]
    cut = completion.get("finish_reason") == "length"
    return (shown or [quiet("empty completion")]) + [Span(" …", "quiet", tooltip="stopped at --max-tokens")] * cut


def exact_prompts(task: RankingTask) -> Sequence[Part]:
    """What was sent to each model and, with its replies, to a judge; special tokens included."""
    sent = [pair for question in task.questions for pair in question.sent]
    sent += [(f"{task.by}, the judge", f"{j['sent']}→ {j['reply']}") for each in task.judged.values() for j in each]
    parts = [part for who, text in dict.fromkeys(sent) for part in (Paragraph(bold(who)), Paragraph(text, "code"))]
    return parts or [Paragraph("none: nothing was sampled")]
