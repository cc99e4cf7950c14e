"""The leaderboard of an arena as a static page: Elo with its interval as a bar, votes, and the battles behind a click.

While votes are asked for, standings stay untold: who knows who leads does not vote blind.
"""

from __future__ import annotations

from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.notebook.views.bundle import MIME, Bundle, escape, marked, plain, quoted
from jupyter_gpt.notebook.views.completion import settings
from jupyter_gpt.notebook.views.rank import Page, code, sampling
from jupyter_gpt.notebook.views.table import RULE, text_table
from jupyter_gpt.stages.arena import Arena, Standing

QUIET = "color:#888;font-size:90%"
CELL = "text-align:left;vertical-align:middle;white-space:nowrap;background-color:transparent;padding:5px 16px 5px 6px"
HEAD = ("rank", "model", "Elo", "95% interval", "won", "tied", "lost", "what it is")
WIDTH = 180  # pixels of the scale
BAR = "display:inline-block;height:8px;border-radius:4px"
CHOSEN = "background-color:rgba(0,158,115,0.22);border-radius:9px;padding:0 8px"


def arena_bundle(arena: Arena, *, blind: bool = False) -> Bundle:
    """The static bundle of an `Arena` as it stands; `blind` leaves out who leads."""
    standings = arena.leaderboard
    prompts = sorted({row.prompt for row in arena.rows})
    title = f"{len(prompts)} prompt{'s' * (len(prompts) != 1)}, {settings(Sampling(**sampling(arena.ranked)))}"
    table = text_table(HEAD, [cells(standing) for standing in standings], "rlrrrrrl")
    text = [
        f"arena {', '.join(arena.models)}: {title}",
        quoted(f"{status_line(arena)}\n{table}\n{battles_text(arena)}"),
    ]
    shown = "" if blind else leaderboard_html(standings) + battles_html(arena)
    html = (
        f"<p><b>{escape(', '.join(arena.models))}</b> {escape(title)}<br>"
        f'<span style="{QUIET}">{marked(plain(status_line(arena)))}</span></p>{marked(shown)}'
        f"<details><summary>the exact prompts</summary>{marked(prompts_html(arena))}</details>"
    )
    data = {
        "view": "arena",
        "models": arena.models,
        "rankings": arena.rankings.name,
        "prompts": prompts,
        "sampling": sampling(arena.ranked),
    }
    return Bundle("\n".join(text), html, data, metadata(arena, standings))


def status_line(arena: Arena) -> str:
    """How many battles have a vote and how many are missing, by whom, and how far they agree."""
    same = sum(row.same for row in arena.rows)
    missing = len(arena.missing)
    parts = [f"{len(arena.rows)} battles: {len(arena.rows) - same - missing} voted on, {missing} missing"]
    if same:
        parts.append(f"{same} tied by the same words")
    if arena.ranked.labellers:
        parts.append("by " + ", ".join(f"{by} {count}" for by, count in arena.ranked.labellers.items()))
    agreement = arena.ranked.agreement
    if agreement is not None:
        parts.append(f"agreement: Kendall's W {agreement.w:.2f} (chance {agreement.chance:.2f})")
    return " · ".join([*parts, *arena.ranked.notes])


def cells(standing: Standing) -> tuple[str, ...]:
    """A line of the leaderboard."""
    rating = standing.rating
    counts = (str(number) for number in (rating.wins, rating.ties, rating.losses))
    return (str(standing.rank), standing.model, f"{rating.elo:.0f}", interval(rating), *counts, standing.about)


def interval(rating) -> str:
    return f"{rating.low:.0f} to {rating.high:.0f}"


def leaderboard_html(standings: list[Standing]) -> str:
    """The table, each interval drawn on a scale that all share."""
    low, high = min(s.rating.low for s in standings), max(s.rating.high for s in standings)
    head = "".join(f'<th style="{CELL};border-bottom:{RULE}">{name}</th>' for name in (*HEAD[:3], "", *HEAD[3:]))
    rows = []
    for standing in standings:
        first = [f"<b>{escape(text)}</b>" for text in cells(standing)[:3]]
        rest = [escape(text) for text in cells(standing)[3:]]
        shown = [*first, scale(standing.rating, low, high), *rest]
        cellular = "".join(f'<td style="{CELL}">{text}</td>' for text in shown)
        rows.append(f'<tr style="background-color:transparent">{cellular}</tr>')
    note = (
        f'<p style="{QUIET}">Elo from a Bradley-Terry model of all votes, 1000 the mean of these models, 400 points '
        "odds of ten to one; 95% intervals, the wider end of the bootstrap over prompts and of the likelihood's "
        "curvature.</p>"
    )
    return (
        f"<table "
        f'style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>{note}'
    )


def scale(rating, low: float, high: float) -> str:
    """The interval as a bar, and in it the rating as a tick, from `low` to `high` points."""
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


def outcome(arena: Arena, i: int, choice) -> str:
    """Who won a battle, in a word or two."""
    if arena.rows[i].same:
        return "tie: the same words"
    if choice is None:
        return "no vote yet"
    return "tie" if choice == "tie" else arena.ranked.questions[i].completions[choice]["model"]


def battles_text(arena: Arena) -> str:
    lines = []
    for i, (row, choice) in enumerate(zip(arena.rows, arena.choices, strict=True)):
        pair = " against ".join(each["model"] for each in arena.ranked.questions[i].completions)
        lines.append(f"{pair}: {outcome(arena, i, choice)}  ({row.prompt})")
    return "\n".join(lines)


def battles_html(arena: Arena) -> str:
    """Every battle with both texts, behind a click."""
    rows = []
    for i, choice in enumerate(arena.choices):
        question = arena.ranked.questions[i]
        said = plain(outcome(arena, i, choice))
        rows.append(
            f'<p style="margin:14px 0 2px"><b>{plain(question.prompt)}</b> <span style="{QUIET}">{said}</span></p>'
        )
        for place, each in enumerate(question.completions):
            style = CHOSEN if choice == place else QUIET
            text = plain(each["text"].strip()).replace("\n", "<br>") or "nothing: it ended at once"
            rows.append(f'<div><span style="{style}">{plain(each["model"])}</span> {text}</div>')
    return f"<details><summary>the battles</summary>{''.join(rows)}</details>"


def prompts_html(arena: Arena) -> str:
    """What was sent to each model, and to a judge with its answers, special tokens included. Holds no marks."""
    out = [code(name, sent) for question in arena.ranked.questions for name, sent in question.sent]
    for judged in arena.ranked.judged.values():
        out += [code(f"{arena.ranked.by}, the judge", each["sent"] + "→ " + each["said"]) for each in judged]
    return "".join(dict.fromkeys(out))


def metadata(arena: Arena, standings: list[Standing]) -> dict:
    """The leaderboard and the battles, as JSON has them."""
    return {
        "leaderboard": [
            {
                "rank": s.rank,
                "model": s.model,
                "about": s.about,
                "elo": s.rating.elo,
                "low": s.rating.low,
                "high": s.rating.high,
                "wins": s.rating.wins,
                "ties": s.rating.ties,
                "losses": s.rating.losses,
            }
            for s in standings
        ],
        "battles": [
            {
                "prompt": q.prompt,
                "models": [each["model"] for each in q.completions],
                "texts": q.texts,
                "answers": {by: [list(group) for group in r.order] for by, r in answers.items()},
                "judged": arena.ranked.judged.get(i, []),
            }
            for i, (q, answers) in enumerate(zip(arena.ranked.questions, arena.ranked.answers, strict=True))
        ],
        "missing": len(arena.missing),
    }


class ArenaPage(Page):
    """Where an arena is shown: a line while models write or judge, then the leaderboard, and with a person there the
    voting form until no vote is missing."""

    def answers(self, arena: Arena, blind: bool = False) -> None:
        bundle = arena_bundle(arena, blind=blind)
        self.put(bundle.mime(), {MIME: bundle.metadata})

    def form(self, arena: Arena):
        from jupyter_gpt.notebook.views.votes import VoteForm

        return VoteForm(arena)
