"""The arena: every two of several models on every prompt, blind; whoever judges says which is better; a leaderboard.

After Chatbot Arena (Zheng et al. 2023). A vote is a ranking of two, on disk at the moment it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.elo import DRAWN, Game, Rating, ratings
from jupyter_gpt.runs.provenance import provenance
from jupyter_gpt.stages import judges as judging
from jupyter_gpt.stages import rank
from jupyter_gpt.stages.compare import check, shortened, shuffled
from jupyter_gpt.stages.rankings import Question, Questions

PROMPTS = (
    "What is the capital of France?",
    "Explain to a child why the sky is blue.",
    "Write a short poem about autumn.",
    "Give me three tips for sleeping better.",
    "A train leaves at 9:40 and arrives at 11:15. How long does it take?",
    "Name two differences between a frog and a toad.",
    "Reply politely to somebody who invites me to dinner; I cannot come.",
    "Put this in one sentence: it rained all day, the river rose, and the bridge was closed.",
)  # what is asked where nobody says what to ask


@dataclass(frozen=True)
class Standing:
    """One line of the leaderboard: who it is, in words, and its rating; models that share a rank rate the same."""

    rank: int
    model: str
    about: str
    rating: Rating


class Arena:
    """The battles, each a question of two completions, and the votes there are.

    It is what the voting form asks: `rows`, `choices`, `missing`, `choose`, `undo`, `given`, `tally`.
    """

    def __init__(self, ranked: rank.Ranked, about: dict[str, str]):
        self.ranked, self.about = ranked, about

    @property
    def models(self) -> list[str]:
        return self.ranked.models

    @property
    def rankings(self):
        return self.ranked.rankings

    @property
    def rows(self) -> list[Battle]:
        return [Battle(question) for question in self.ranked.questions]

    @property
    def missing(self) -> list[int]:
        """The battles that wait for a vote."""
        return self.ranked.missing

    @property
    def given(self) -> list:
        return self.ranked.given

    @property
    def choices(self) -> list[int | str | None]:
        """For each battle the place of the better, `tie`, or None where there is no vote."""
        answers = self.ranked.answers
        found = [self.ranked.answer(i, answers) for i in range(len(answers))]
        return [None if r is None else r.order[0][0] if len(r.order) == 2 else "tie" for r in found]

    def choose(self, row: int, place: int | None) -> None:
        """Vote for the completion at `place` of a battle; None is a tie."""
        self.ranked.rank(row, [[0, 1]] if place is None else [[place], [1 - place]])

    def undo(self) -> int | None:
        """Take back the last vote given here; which battle, None when there is none."""
        return self.ranked.undo()

    @property
    def games(self) -> list[Game]:
        """Every vote of every labeller; two models that wrote the same have tied without one."""
        found = []
        place = {name: i for i, name in enumerate(self.models)}
        for question, answers in zip(self.ranked.questions, self.ranked.answers, strict=True):
            one, other = (place[each["model"]] for each in question.completions)
            if not question.open:
                found.append(Game(one, other, DRAWN, question.prompt))
            for answer in answers.values():
                score = DRAWN if len(answer.order) == 1 else float(answer.order[0] == (0,))
                found.append(Game(one, other, score, question.prompt))
        return found

    @property
    def leaderboard(self) -> list[Standing]:
        """The models, the strongest first."""
        found = sorted(zip(self.models, ratings(self.games, len(self.models)), strict=True), key=lambda p: -p[1].elo)
        elos = [round(rating.elo, 6) for _, rating in found]
        return [
            Standing(elos.index(elo) + 1, name, self.about.get(name, ""), rating)
            for elo, (name, rating) in zip(elos, found, strict=True)
        ]

    @property
    def tally(self) -> dict[str, str]:
        """Each model's rating, for the form's last line."""
        return {standing.model: f"{standing.rating.elo:.0f}" for standing in self.leaderboard}

    @property
    def table(self):
        """The leaderboard as a DataFrame: rank, model, elo, low, high (95%), games, wins, ties, losses."""
        import pandas

        return pandas.DataFrame(
            [
                {
                    "rank": s.rank,
                    "model": s.model,
                    "elo": s.rating.elo,
                    "low": s.rating.low,
                    "high": s.rating.high,
                    "games": s.rating.games,
                    "wins": s.rating.wins,
                    "ties": s.rating.ties,
                    "losses": s.rating.losses,
                }
                for s in self.leaderboard
            ]
        )

    def __repr__(self) -> str:
        return f"<arena of {', '.join(self.models)}: {len(self.rows)} battles, {len(self.missing)} without a vote>"


@dataclass(frozen=True)
class Battle:
    """A question of two, as the voting form reads it."""

    question: Question

    @property
    def prompt(self) -> str:
        return self.question.prompt

    @property
    def texts(self) -> list[str]:
        return self.question.texts

    @property
    def shown(self) -> tuple[int, ...]:
        return self.question.shown

    @property
    def same(self) -> bool:
        """Whether both wrote the same."""
        return not self.question.open


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
    tick: rank.Tick | None = None,
    **options,
) -> Arena:
    """Let every two of `models` answer each prompt (default: `PROMPTS`), for `by` or a `judge` to vote on.

    Votes are kept under `name` (default: by the models); `judge`, `overwrite` and `options` are those of `gpt.rank`.
    Nothing waits for a person. Raises GPTError for fewer than two models, and one that is there twice or unknown.
    """
    models, prompts = list(models), list(dict.fromkeys(prompts or PROMPTS))
    check(gpt, models, prompts, 1, "%gpt arena MODEL MODEL …")
    judge = judging.check(gpt, judge)
    if isinstance(judge, str) and judge in models:
        raise GPTError(f"{judge} cannot judge itself: take another model, or a $function")
    rankings = gpt.rankings.named(name or shortened("-".join(["arena", *models])))
    new = provenance("arena", {"prompts": prompts, "model": models, "seed": seed, **options})
    Questions(rankings).claim(prompts, new, overwrite or name is None)
    found = rank.sampled(gpt, rankings, prompts, models, 1, {**options, "seed": seed}, battles, new, tick)
    questions = [question for text in prompts for question in sorted(found[text], key=lambda q: who(q, models))]
    order = shuffled(len(questions), f"{seed}")  # else one would vote on the same two texts again and again
    questions = [questions[place] for place in order]
    Questions(rankings).write(questions, new)
    notes = [note for note in (rankings.torn,) if note]
    ranked = rank.Ranked(
        rankings,
        questions,
        models,
        {**options, "seed": seed, "samples": 1},
        by=by,
        anybody=judge is not None,
        notes=notes,
    )
    if judge is not None:
        judging.judge(gpt, ranked, judge, tick)
        ranked.given.clear()
    return Arena(ranked, {each: in_words(gpt.models[each]) for each in models})


def who(question: Question, models: Sequence[str]) -> list[int]:
    """The places of the models of a battle."""
    return [models.index(each["model"]) for each in question.completions]


def battles(prompt: str, models: Sequence[str], completions: Sequence, seed: int, source: str) -> list[Question]:
    """A question for every two models, of what each wrote to the prompt."""
    entries = [
        {"model": name, "text": completion.text, "seed": seed, "finish_reason": completion.finish_reason, "times": 1}
        for name, completion in zip(models, completions, strict=True)
    ]
    sent = [(name, completion.prompt) for name, completion in zip(models, completions, strict=True)]
    return [
        Question(prompt, (entries[a], entries[b]), shuffled(2, f"{seed} {a} {b} {prompt}"), (sent[a], sent[b]), source)
        for a, b in combinations(range(len(models)), 2)
    ]


def in_words(model) -> str:
    """Who a model is: base or assistant, size and licence, or where it is served."""
    if model.kind == "endpoint":
        return model.lineage[-1]
    size = f"{model.parameters:,} parameters" if model.parameters else ""
    licence = f"licence {model.licence}" if model.licence else ""
    return ", ".join(filter(None, ["assistant" if model.has_chat else "base model", size, licence]))
