"""What `%%rank`, `%%compare` and `%gpt arena` leave: completions ranked, side by side, or behind a leaderboard.

While a person ranks, the completions are folded up and models are unnamed, so that the page does not tell whose text is
whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from jupyter_gpt.evaluation.bradley_terry import Rating
from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.inference.completion_report import settings
from jupyter_gpt.notebook.views.place import Place
from jupyter_gpt.report.differences import differences, mostly
from jupyter_gpt.report.parts import Bar, Folded, Inline, Paragraph, Part, Samples, Span, Table, Varies, bold, quiet
from jupyter_gpt.report.report import Report
from jupyter_gpt.stages.arena import Arena
from jupyter_gpt.stages.compare import Comparison
from jupyter_gpt.stages.rank import RankingTask
from jupyter_gpt.stages.rankings import Question, Ranking

GREEN = "rgba(0,158,115,0.22)"
ORANGE = "rgba(224,140,50,{})"
BLUE, PALE = "rgb(58,143,208)", "rgba(58,143,208,0.35)"
TICK = 0.02  # width of a rating in the bar of its interval
ELO = (
    "Elo by a Bradley-Terry model of all votes; 1000 is the mean of these models, 400 points are odds of 10 to 1. "
    "95% intervals: the wider of the bootstrap over prompts and the curvature of the likelihood."
)


def ranking_report(task: RankingTask, *, blind: bool = False) -> Report:
    """The report of a task as it stands; `blind` does not tell whose completions wait, nor who leads."""
    rows = list(enumerate(zip(task.questions, task.accepted(), strict=True), start=1))
    names = [f"{i}. {question.prompt}{seed_of(task, question)}" for i, (question, _) in rows]
    body: list[Part]
    if isinstance(task, Comparison):
        texts = [side_by_side(question, answer) for _, (question, answer) in rows]
        body = [Samples(task.models, list(zip(names, texts, strict=True)))]
    else:
        tables = [Table((), ranked(task, q, answer, blind), "ll", wrap=True) for _, (q, answer) in rows]
        body = [part for name, table in zip(names, tables, strict=True) for part in (Paragraph(bold(name)), table)]
    if blind or isinstance(task, Arena):
        body = [Folded("completions and rankings", body, text=True)]
    if isinstance(task, Arena) and not blind:
        body = [*leaderboard(task), *body]
    parts = [
        Paragraph(subtitle(task)),
        Paragraph(Varies(status_line(task, blind)), "quiet"),
        Varies(body),
        Folded("exact prompts", [Varies(exact_prompts(task))]),
    ]
    data = {
        "view": task.kind,
        "rankings": task.name,
        "models": task.models,
        "prompts": sorted({q.prompt for q in task.questions}),
        "sampling": sampling(task).as_dict(),
    }
    title = f"{task.kind} {', '.join(task.models)}" if task.best_only else f"rankings {task.name}"
    return Report(title, parts, data, metadata(task))


def subtitle(task: RankingTask) -> str:
    """What was asked, the same on every machine."""
    count, models = len({q.prompt for q in task.questions}), ", ".join(task.models)
    line = f"{count} prompt{'s' * (count != 1)}"
    if not task.options:
        return f"{line}, completions of {models}" if models else line
    how = sampling(task)
    each = f", {how.samples} completion{'s' * (how.samples != 1)} each of {models}" if not task.best_only else ""
    return f"{line}{each}, {settings(how)}" + (" and up" if how.samples > 1 else "")


def sampling(task: RankingTask) -> Sampling:
    """The settings that made the completions."""
    return Sampling(**{name: value for name, value in task.options.items() if name in Sampling.model_fields})


def status_line(task: RankingTask, blind: bool = False) -> str:
    """How many prompts are ranked and how many are missing, by whom, and how far they agree."""
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
    if isinstance(task, Comparison):
        parts.append("tinted: words that no other completion has")
    return " · ".join([*parts, *task.notes])


def seed_of(task: RankingTask, question: Question) -> str:
    """Of a prompt that is there once per sample, which sample it is."""
    several = task.best_only and task.options.get("samples", 1) > 1
    return f" (seed {question.completions[0]['seed']})" if several else ""


def ranked(task: RankingTask, question: Question, answer: Ranking | None, blind: bool) -> list[tuple[Inline, Inline]]:
    """(rank, completion) rows of one prompt, best first: `1`, `2=`, `2=`, `4`; as shown, with `–`, where not ranked."""
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


def side_by_side(question: Question, answer: Ranking | None) -> list[Inline]:
    """What each model wrote to one prompt, words that no other has tinted, the best marked."""
    pieces = differences([text.strip() for text in question.texts])
    best = answer.order[0] if answer else ()
    mark = Span("tie" if len(best) > 1 else "✓ best", "bold", GREEN)
    return [
        [mark, "\n"] * (place in best) + written(each, of_text)
        for place, (each, of_text) in enumerate(zip(question.completions, pieces, strict=True))
    ]


def written(completion: dict, pieces: Sequence[tuple[str, bool]]) -> list[Inline]:
    tint = ORANGE.format(0.09 if mostly(pieces) else 0.24)
    shown: list[Inline] = [Span(text, tint=tint) if differs else text for text, differs in pieces if text]
    cut = completion.get("finish_reason") == "length"
    return (shown or [quiet("empty completion")]) + [Span(" …", "quiet", tooltip="stopped at --max-tokens")] * cut


def leaderboard(task: Arena) -> list[Part]:
    """The models' ratings, each interval drawn on a scale that all share."""
    standings = task.leaderboard
    low, high = min(s.rating.low for s in standings), max(s.rating.high for s in standings)

    def interval(rating: Rating) -> list[Inline]:
        ends = (low, rating.low, rating.elo, rating.high)
        before, left, right = ((1 - TICK) * (b - a) / (high - low) for a, b in pairwise(ends))
        text = f"{rating.low:.0f} to {rating.high:.0f}"
        bar = [(before, "transparent", ""), (left, PALE, text), (TICK, BLUE, f"{rating.elo:.0f}"), (right, PALE, text)]
        return [Bar(bar, width=180), f" {text}"]

    rows = [
        (s.rank, bold(s.model), bold(f"{r.elo:.0f}"), interval(r), r.wins, r.ties, r.losses, s.about)
        for s, r in ((s, s.rating) for s in standings)
    ]
    header = ("rank", "model", "Elo", "95% interval", "won", "tied", "lost", "description")
    return [Table(header, rows, "rlrlrrrl"), Paragraph(ELO, "quiet")]


def exact_prompts(task: RankingTask) -> Sequence[Part]:
    """What was sent to each model, and to a judge with its replies, special tokens included."""
    sent = [pair for question in task.questions for pair in question.sent]
    sent += [(f"{task.by}, the judge", f"{j['sent']}→ {j['reply']}") for each in task.judged.values() for j in each]
    parts = [part for who, text in dict.fromkeys(sent) for part in (Paragraph(bold(who)), Paragraph(text, "code"))]
    return parts or [Paragraph("none: nothing was sampled")]


def metadata(task: RankingTask) -> dict:
    """Everything, as JSON has it: each question with its completions and its rankings."""
    agreement = task.agreement
    board = task.leaderboard if isinstance(task, Arena) else []
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
                "judged": task.judged.get(i, []),
            }
            for i, (q, answers) in enumerate(zip(task.questions, task.answers, strict=True))
        ],
        "missing": len(task.missing),
        "tally": dict(task.tally),
        "leaderboard": [{"rank": s.rank, "model": s.model, "about": s.about, **asdict(s.rating)} for s in board],
        "agreement": agreement and {"w": agreement.w, "chance": agreement.chance, "prompts": agreement.prompts},
        "notes": list(task.notes),
    }


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
        asks = form and self.live and bool(task.missing)
        self.put(ranking_report(task, blind=asks))
        if not asks:
            return
        from IPython.display import display

        from jupyter_gpt.notebook.views.rank_form import RankForm
        from jupyter_gpt.notebook.views.widget import leave

        widget = RankForm(task)
        beside: Any = display(widget.view(), raw=True, display_id=True)

        def changed(done: bool) -> None:
            self.put(ranking_report(task, blind=not done))
            if done:
                if not widget.reloaded:  # else the form is all there is to see
                    beside.update({}, raw=True)
                leave(widget)

        widget.changed = changed
