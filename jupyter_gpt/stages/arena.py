"""`%gpt arena`: blind votes between every two of several models on every prompt, and a leaderboard.

After Chatbot Arena (Zheng et al. 2023). Each pair on each prompt is a question of two completions; a person or a judge
votes, and a Bradley-Terry model of all votes gives the ratings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.bradley_terry import DRAWN, Game, Rating, ratings
from jupyter_gpt.report.parts import Bar, Inline, Paragraph, Part, Table, bold
from jupyter_gpt.runs.provenance import provenance
from jupyter_gpt.stages import judges
from jupyter_gpt.stages.compare import shortened
from jupyter_gpt.stages.rank import Tick, check_several, entry_of, prompts_sent, questions_of, shuffled
from jupyter_gpt.stages.ranking_task import RankingTask
from jupyter_gpt.stages.rankings import Question

BLUE, PALE = "rgb(58,143,208)", "rgba(58,143,208,0.35)"
TICK = 0.02  # width of a rating in the bar of its interval
ELO = (
    "Elo by a Bradley-Terry model of all votes; 1000 is the mean of these models, 400 points are odds of 10 to 1. "
    "95% intervals: the wider of the bootstrap over prompts and the curvature of the likelihood."
)
PROMPTS = (
    "What is the capital of France?",
    "Explain to a child why the sky is blue.",
    "Write a short poem about autumn.",
    "Give me three tips for sleeping better.",
    "A train leaves at 9:40 and arrives at 11:15. How long does it take?",
    "Name two differences between a frog and a toad.",
    "Reply politely to somebody who invites me to dinner; I cannot come.",
    "Put this in one sentence: it rained all day, the river rose, and the bridge was closed.",
)  # the default


@dataclass(frozen=True)
class Standing:
    """One line of the leaderboard; models with equal ratings share a rank. `about` describes the model in words."""

    rank: int
    model: str
    about: str
    rating: Rating


class Arena(RankingTask):
    """Battles, each a question of two completions, and the votes for them. `about` describes each model in words."""

    kind = "arena"
    best_only = True

    @property
    def title(self) -> str:
        return f"arena {', '.join(self.models)}"

    def body(self, blind: bool) -> list[Part]:
        return ([] if blind else leaderboard(self)) + super().body(blind)

    def as_dict(self) -> dict:
        board = [{"rank": s.rank, "model": s.model, "about": s.about, **asdict(s.rating)} for s in self.leaderboard]
        return {**super().as_dict(), "leaderboard": board}

    def __init__(self, *args, about: dict[str, str] | None = None, **options):
        super().__init__(*args, **options)
        self.about = about or {}

    @property
    def games(self) -> list[Game]:
        """One game per vote, by whomever; two models that wrote the same text have tied without one."""
        games, place = [], {name: i for i, name in enumerate(self.models)}
        for question, answers in zip(self.questions, self.answers, strict=True):
            one, other = (place[each["model"]] for each in question.completions)
            scores = [DRAWN if len(each.order) == 1 else float(each.order[0] == (0,)) for each in answers.values()]
            if not question.open:
                scores.append(DRAWN)
            games += [Game(one, other, score, question.prompt) for score in scores]
        return games

    @property
    def leaderboard(self) -> list[Standing]:
        """The models, the strongest first."""
        rated = sorted(zip(self.models, ratings(self.games, len(self.models)), strict=True), key=lambda p: -p[1].elo)
        elos = [round(rating.elo, 6) for _, rating in rated]
        return [
            Standing(elos.index(elo) + 1, name, self.about.get(name, ""), rating)
            for elo, (name, rating) in zip(elos, rated, strict=True)
        ]

    @property
    def tally(self) -> dict[str, str]:
        """Each model's rating, rounded."""
        return {standing.model: f"{standing.rating.elo:.0f}" for standing in self.leaderboard}

    @property
    def table(self):
        """The leaderboard as a DataFrame: rank, model, elo, low, high (95%), games, wins, ties, losses."""
        import pandas

        columns = ["rank", "model", "elo", "low", "high", "games", "wins", "ties", "losses"]
        rows = [
            {"rank": s.rank, "model": s.model, "games": s.rating.games, **asdict(s.rating)} for s in self.leaderboard
        ]
        return pandas.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        return f"<arena of {', '.join(self.models)}: {len(self.questions)} battles, {len(self.missing)} without a vote>"


def arena(
    gpt,
    models: Sequence[str],
    prompts: Sequence[str] = (),
    *,
    name: str | None = None,
    seed: int = 0,
    by: str = "person",
    judge: Callable[[str, str], float] | str | None = None,
    overwrite: bool = False,
    tick: Tick | None = None,
    **options,
) -> Arena:
    """Let every two of `models` answer each prompt (default: `PROMPTS`), for `by` or a `judge` to vote on.

    Votes are kept under `name` (default: arena-MODEL-MODEL); `judge`, `overwrite`, `options` are those of `gpt.rank`.
    Raises GPTError for fewer than two models, a repeated or unknown one, and one that would judge itself.
    """
    models, prompts = list(models), list(dict.fromkeys(prompts or PROMPTS))
    check_several(gpt, models, "%gpt arena MODEL MODEL …")
    judge = judges.check(gpt, judge)
    if isinstance(judge, str) and judge in models:
        raise GPTError(f"{judge} cannot judge itself: take another model, or a $function")
    rankings = gpt.rankings.named(name or shortened("-".join(["arena", *models])))
    made = provenance("arena", {"prompts": prompts, "model": models, "seed": seed, **options})
    rankings.claim(prompts, made, overwrite or name is None)
    settings = {**options, "seed": seed, "samples": 1}
    by_prompt = questions_of(gpt, rankings, prompts, models, settings, "battles", battles, made, tick)

    def places(question: Question) -> list[int]:
        return [models.index(each["model"]) for each in question.completions]

    questions = [question for text in prompts for question in sorted(by_prompt[text], key=places)]
    questions = [questions[place] for place in shuffled(len(questions), f"{seed}")]  # else a text comes again at once
    rankings.present(questions, made)
    about = {each: description(gpt.models[each]) for each in models}
    task = Arena(rankings, questions, models, settings, by=by, anybody=judge is not None, about=about)
    if judge is not None:
        judges.rank_all(gpt, task, judge, tick)
    return task


def battles(prompt: str, models: Sequence[str], completions: Sequence, seed: int, source: str) -> list[Question]:
    """A question for every two models, of what each wrote to the prompt."""
    entries = [entry_of(name, completion, seed) for name, completion in zip(models, completions, strict=True)]
    sent = prompts_sent(models, completions)
    return [
        Question(prompt, (entries[a], entries[b]), shuffled(2, f"{seed} {a} {b} {prompt}"), (sent[a], sent[b]), source)
        for a, b in combinations(range(len(models)), 2)
    ]


def description(model) -> str:
    """A model in words: base or assistant, size and licence, or where it is served."""
    if model.kind == "endpoint":
        return model.lineage[-1]
    size = f"{model.parameters:,} parameters" if model.parameters else ""
    licence = f"licence {model.licence}" if model.licence else ""
    return ", ".join(filter(None, ["assistant" if model.has_chat else "base model", size, licence]))


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
