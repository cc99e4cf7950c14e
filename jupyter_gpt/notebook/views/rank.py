"""What `%%rank`, `%%compare` and `%gpt arena` leave: the completions in their order, and for several models side by
side, or behind a leaderboard.

While a person ranks, the completions are folded up and models are unnamed, so that the page does not tell whose text is
whose. What was sampled or ranked stands inside the marks of sampled text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.notebook.views.bundle import MIME, Bundle, escape, marked, plain, quoted
from jupyter_gpt.notebook.views.completion import prose, settings
from jupyter_gpt.notebook.views.differences import differences, mostly
from jupyter_gpt.notebook.views.table import CODE, RULE, text_table
from jupyter_gpt.stages.arena import Arena, Standing
from jupyter_gpt.stages.compare import Comparison
from jupyter_gpt.stages.rank import RankingTask
from jupyter_gpt.stages.rankings import Question, Ranking

QUIET = "color:#888;font-size:90%"
CELL = "text-align:left;vertical-align:top;white-space:normal;background-color:transparent;padding:5px 14px 5px 6px"
BADGE = "border-radius:9px;padding:0 9px;white-space:nowrap;"
BEST = BADGE + "background-color:rgba(0,158,115,0.22);font-weight:600"
RANKED = BADGE + "border:1px solid rgba(128,128,128,0.45)"
TINT = "background-color:rgba(224,140,50,{});border-radius:3px"
FOLDED = "<details><summary>the completions, and the rankings so far</summary>"
BOARD = ("rank", "model", "Elo", "95% interval", "won", "tied", "lost", "description")
WIDTH = 180  # pixels of the scale of ratings
BAR = "display:inline-block;height:8px;border-radius:4px"
ELO = (
    "Elo by a Bradley-Terry model of all votes; 1000 is the mean of these models, 400 points are odds of 10 to 1. "
    "95% intervals: the wider of the bootstrap over prompts and the curvature of the likelihood."
)


def rank_bundle(task: RankingTask, *, blind: bool = False) -> Bundle:
    """The static bundle of a task as it stands; `blind` does not tell whose completions wait, nor who leads."""
    rows = list(zip(task.questions, task.accepted(), strict=True))
    text = [headline(task), quoted(status_line(task))]
    if isinstance(task, Arena):
        text.append(quoted(text_table(BOARD, [cells(standing) for standing in task.leaderboard], "rlrrrrrl")))
    for i, (question, answer) in enumerate(rows, start=1):
        text += [f"\n{i}. {question.prompt}{seed_of(task, question)}", quoted(listed(task, question, answer, blind))]
    side_by_side = isinstance(task, Comparison)
    body = "".join(
        f'<tr><td style="{CELL};padding-top:14px"><span style="color:#888">{i}</span>&nbsp; '
        f"<b>{escape(question.prompt)}</b>{escape(seed_of(task, question))}</td></tr>"
        f'<tr style="background-color:transparent"><td style="{CELL};padding:0 0 8px 18px;line-height:1.5">'
        f"{marked((columns if side_by_side else ranked_list)(task, question, answer, blind))}</td></tr>"
        for i, (question, answer) in enumerate(rows, start=1)
    )
    board = leaderboard(task.leaderboard) if isinstance(task, Arena) and not blind else ""
    fold = FOLDED if blind or isinstance(task, Arena) else ""
    html = (
        f"<p><b>{escape(headline(task).partition(': ')[0])}</b> {escape(headline(task).partition(': ')[2])}<br>"
        f'<span style="{QUIET}">{marked(plain(status_line(task, blind)))}</span></p>{marked(board)}{marked(fold)}'
        f'<table width="100%" style="border-collapse:collapse;width:100%"><tbody>{body}</tbody></table>'
        f"{marked('</details>' if fold else '')}"
        f"<details><summary>exact prompts</summary>{marked(prompts_html(task))}</details>"
    )
    data = {
        "view": task.kind,
        "rankings": task.name,
        "models": task.models,
        "prompts": sorted({q.prompt for q in task.questions}),
        "sampling": sampling(task).as_dict(),
    }
    return Bundle("\n".join(text), html, data, metadata(task))


def headline(task: RankingTask) -> str:
    """What was asked, in one line that is the same on every machine."""
    count, models = len({q.prompt for q in task.questions}), ", ".join(task.models)
    title = f"{task.kind} {models}" if task.best_only else f"rankings {task.name}"
    line = f"{title}: {count} prompt{'s' * (count != 1)}"
    if not task.options:
        return f"{line}, completions of {models}" if models else line
    how = sampling(task)
    each = f", {how.samples} completion{'s' * (how.samples != 1)} each of {models}" if not task.best_only else ""
    return f"{line}{each}, {settings(how)}" + (" and up" if how.samples > 1 else "")


def sampling(task: RankingTask) -> Sampling:
    """The settings that made the completions."""
    given = {k: v for k, v in task.options.items() if k in Sampling.__dataclass_fields__ and v is not None}
    if "stop" in given:
        given["stop"] = (given["stop"],) if isinstance(given["stop"], str) else tuple(given["stop"])
    return Sampling(**given)


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


def ordered(question: Question, answer: Ranking | None) -> list[tuple[str, int]]:
    """(rank, place) of each completion, best first: `1`, `2=`, `2=`, `4`; as shown, with `–`, where there is none."""
    if answer is None:
        return [("–", place) for place in question.shown]
    found, before = [], 1
    for group in answer.order:
        found += [(f"{before}{'=' * (len(group) > 1)}", place) for place in group]
        before += len(group)
    return found


def note_of(task: RankingTask, completion: dict, blind: bool) -> str:
    """Whose a completion is, unless that shall not be known, and how often it was sampled."""
    words = [completion["model"]] if len(task.models) > 1 and not blind else []
    words += [f"sampled {completion['times']} times"] if completion.get("times", 1) > 1 else []
    return ", ".join(words)


def listed(task: RankingTask, question: Question, answer: Ranking | None, blind: bool) -> str:
    """The completions of one prompt as text, the best first."""
    lines = []
    for rank, place in ordered(question, answer):
        note = note_of(task, question.completions[place], blind and answer is None)
        written = question.texts[place].strip().replace("\n", "\n       ") or "(empty)"
        lines.append(f"   {rank:<3} {written}" + (f" ({note})" if note else ""))
    if answer is None and question.open:
        lines.append("   not ranked yet")
    if answer and answer.reason:
        lines.append(f"   {answer.by}: {answer.reason}")
    return "\n".join(lines)


def ranked_list(task: RankingTask, question: Question, answer: Ranking | None, blind: bool) -> str:
    """The completions of one prompt as a table, the best first."""
    rows = []
    for rank, place in ordered(question, answer):
        completion = question.completions[place]
        style = QUIET if answer is None else BEST if rank.startswith("1") else RANKED
        note = note_of(task, completion, blind and answer is None)
        tail = f' <span style="{QUIET}">{plain(note)}</span>' if note else ""
        rows.append((f'<span style="{style}">{rank}</span>', written(completion, [(completion["text"], False)]) + tail))
    if answer and answer.reason:
        rows.append(("", f'<span style="{QUIET}">{plain(answer.by)}: {plain(answer.reason)}</span>'))
    body = "".join(
        f'<tr style="background-color:transparent"><td width="44" style="{CELL}">{rank}</td>'
        f'<td style="{CELL};border-bottom:{RULE};overflow-wrap:anywhere">{text}</td></tr>'
        for rank, text in rows
    )
    return f'<table width="100%" style="border-collapse:collapse;width:100%"><tbody>{body}</tbody></table>'


def columns(task: RankingTask, question: Question, answer: Ranking | None, blind: bool) -> str:
    """The completions of one prompt side by side, a column per model, words that no other text has tinted."""
    ranks = {place: rank for rank, place in ordered(question, answer)} if answer else {}
    cells = "".join(
        f'<td width="{100 // len(task.models)}%" style="{CELL}">'
        f'<span style="{BEST if ranks.get(place) == "1" else QUIET}">{plain(completion["model"])}'
        f"{' ✓ best' if ranks.get(place) == '1' else ' tie' if ranks.get(place) == '1=' else ''}</span><br>"
        f"{written(completion, pieces)}</td>"
        for place, (completion, pieces) in enumerate(
            zip(question.completions, differences(question.texts), strict=True)
        )
    )
    return (
        f'<table width="100%" style="border-collapse:collapse;width:100%"><tbody>'
        f'<tr style="background-color:transparent">{cells}</tr></tbody></table>'
    )


def written(completion: dict, pieces: Sequence[tuple[str, bool]]) -> str:
    """A completion as HTML; a tint goes line by line, so that it never runs across an empty line."""
    style = TINT.format(0.09 if mostly(pieces) else 0.24)

    def tinted(text: str) -> str:
        return "<br>".join(f'<span style="{style}">{plain(line)}</span>' if line else "" for line in text.split("\n"))

    shown = "".join(tinted(text) if differs else guarded(prose(text)) for text, differs in pieces).strip()
    shown = shown or f'<span style="{QUIET}">empty completion</span>'
    cut = completion.get("finish_reason") == "length"
    return shown + (f' <span style="{QUIET}" title="stopped at --max-tokens">…</span>' if cut else "")


def guarded(html: str) -> str:
    """HTML whose own guillemets end no mark."""
    return html.replace("«", "&laquo;").replace("»", "&raquo;")


def cells(standing: Standing) -> tuple[str, ...]:
    """A line of the leaderboard."""
    rating = standing.rating
    counts = (str(number) for number in (rating.wins, rating.ties, rating.losses))
    interval = f"{rating.low:.0f} to {rating.high:.0f}"
    return (str(standing.rank), standing.model, f"{rating.elo:.0f}", interval, *counts, standing.about)


def leaderboard(standings: list[Standing]) -> str:
    """The leaderboard, each interval drawn on a scale that all share."""
    low, high = min(s.rating.low for s in standings), max(s.rating.high for s in standings)
    head = "".join(f'<th style="{CELL};border-bottom:{RULE}">{name}</th>' for name in (*BOARD[:3], "", *BOARD[3:]))
    rows = []
    for standing in standings:
        texts = [escape(text) for text in cells(standing)]
        shown = [*(f"<b>{text}</b>" for text in texts[:3]), scale(standing.rating, low, high), *texts[3:]]
        row = "".join(f'<td style="{CELL};white-space:nowrap">{text}</td>' for text in shown)
        rows.append(f'<tr style="background-color:transparent">{row}</tr>')
    return (
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'<p style="{QUIET}">{ELO}</p>'
    )


def scale(rating, low: float, high: float) -> str:
    """The interval as a bar with a tick at the rating, from `low` to `high` points."""
    unit = (WIDTH - 4) / (high - low)
    before, left, right = (
        (b - a) * unit for a, b in ((low, rating.low), (rating.low, rating.elo), (rating.elo, rating.high))
    )
    pale = f"{BAR};background-color:rgba(58,143,208,0.35)"
    return (
        f'<span style="display:inline-block;width:{WIDTH}px;white-space:nowrap;line-height:8px">'
        f'<span style="display:inline-block;width:{before:.0f}px"></span>'
        f'<span style="{pale};width:{max(0, left - 2):.0f}px"></span>'
        f'<span style="{BAR};width:4px;height:14px;background-color:rgb(58,143,208);vertical-align:-3px"></span>'
        f'<span style="{pale};width:{max(0, right - 2):.0f}px"></span></span>'
    )


def prompts_html(task: RankingTask) -> str:
    """What was sent to each model, and to a judge with its replies, special tokens included. Holds no marks."""
    sent = [pair for question in task.questions for pair in question.sent]
    sent += [(f"{task.by}, the judge", f"{j['sent']}→ {j['reply']}") for each in task.judged.values() for j in each]
    parts = [
        f'<p style="margin:12px 0 2px"><b>{plain(who)}</b></p><div style="{CODE};max-width:960px;'
        f'overflow-wrap:anywhere">{guarded(prose(text))}</div>'
        for who, text in dict.fromkeys(sent)
    ]
    return "".join(parts) or "none: nothing was sampled"


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


class Page:
    """Where a task is shown: one line while models write or judge, then the results, and beside them the form while a
    person is there and rankings are missing.

    Nothing here waits for a person; with nobody there the page is published once. An error takes its line back.
    """

    def __init__(self):
        from jupyter_gpt.notebook.views.follow import is_live

        self.live, self.handle = is_live(), None

    def __enter__(self) -> Page:
        return self

    def __exit__(self, error, *_) -> None:
        if error is not None and self.handle is not None:
            self.handle.update({}, raw=True)

    def working(self, what: str, done: int, total: int, tokens: int) -> None:
        """Shows what is being done, for how many of the prompts it is done, and the tokens of the first completion."""
        if not self.live:
            return
        line = f"{what}: {done} of {total} prompts" + (f", token {tokens:,}" if tokens else "") + " …"
        self.put({"text/plain": line, "text/html": f'<p style="color:#888">{escape(line)}</p>'})

    def put(self, data: dict, metadata: dict | None = None) -> None:
        """Shows this in the place of what was shown before."""
        from IPython.display import display

        if self.handle is not None:
            self.handle.update(data, raw=True, metadata=metadata or {})
        else:
            self.handle = display(data, raw=True, metadata=metadata or {}, display_id=self.live)

    def results(self, task: RankingTask, blind: bool = False) -> None:
        bundle = rank_bundle(task, blind=blind)
        self.put(bundle.mime(), {MIME: bundle.metadata})

    def show(self, task: RankingTask, form: bool = True) -> None:
        """The results, and with `form` the missing rankings asked for beside them."""
        asks = form and self.live and bool(task.missing)
        self.results(task, blind=asks)
        if not asks:
            return
        from IPython.display import display

        from jupyter_gpt.notebook.views.live import close
        from jupyter_gpt.notebook.views.rank_form import RankForm

        widget = RankForm(task)
        beside = display(widget.view(), raw=True, display_id=True)

        def changed(done: bool) -> None:
            self.results(task, blind=not done)
            if done and not widget.reloaded:  # else neither found its place, and the form is all there is to see
                beside.update({}, raw=True)
                close(widget)

        widget.changed = changed
