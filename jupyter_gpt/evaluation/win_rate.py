"""How likely each of several models is to beat one of them, by Bradley-Terry over all their games, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jupyter_gpt.evaluation.elo import Game, covariance, strengths
from jupyter_gpt.evaluation.intervals import Z95

ROUNDS = 1000  # resamplings


class Rate(NamedTuple):
    """A chance of winning, and the ends of its 95% interval (None from one prompt alone)."""

    rate: float
    low: float | None
    high: float | None


def win_rates(games: Sequence[Game], count: int, against: int, *, rounds: int = ROUNDS, seed: int = 0) -> list[Rate]:
    """The chance of each of `count` players to beat player `against` (of that one itself: a half).

    Strengths as in `elo.strengths`, from all games, so that who beats a third model counts too. Intervals as in
    `elo.ratings`, the wider end of two: the bootstrap over the groups of games, for those of one prompt are not
    independent, and the likelihood's curvature, for a few groups that are all alike vary in no resampling.
    """
    import numpy

    groups = list(dict.fromkeys(game.group for game in games))
    place = {group: n for n, group in enumerate(groups)}
    won = numpy.zeros((len(groups), count, count))
    for game in games:
        won[place[game.group], game.one, game.other] += game.score
        won[place[game.group], game.other, game.one] += 1 - game.score

    def ahead(tables):
        log = strengths(tables)
        return log - log[..., against, None]

    def chance(odds):
        return (1 / (1 + numpy.exp(-odds))).tolist()

    found, low, high = ahead(won.sum(0)), [None] * count, [None] * count
    if len(groups) > 1:
        shared = covariance(won.sum(0), found)
        own = numpy.diag(shared)
        half = Z95 * numpy.sqrt(own + own[against] - 2 * shared[against])
        times = numpy.random.default_rng(seed).multinomial(len(groups), [1 / len(groups)] * len(groups), size=rounds)
        ends = numpy.percentile(ahead(numpy.einsum("rg,gij->rij", times, won)), [2.5, 97.5], axis=0)
        low, high = chance(numpy.minimum(found - half, ends[0])), chance(numpy.maximum(found + half, ends[1]))
    return [Rate(*each) for each in zip(chance(found), low, high, strict=True)]


def by_score(one: int, scores: Sequence[float], other: int, others: Sequence[float], groups: Sequence) -> list[Game]:
    """One game a pair of scores that belong together: the higher one wins, equal ones tie."""
    return [
        Game(one, other, 1.0 if a > b else 0.0 if a < b else 0.5, group)
        for a, b, group in zip(scores, others, groups, strict=True)
    ]
