"""Elo ratings and win rates from pairwise games, by a Bradley-Terry model, with 95% intervals.

A model of strength p_i beats one of strength p_j with probability p_i / (p_i + p_j) (Bradley and Terry 1952); a tie is
half a game for each. Strengths are fitted by the MM iteration of Hunter (2004, equation 3) on all games at once, so
their order does not matter as it does in Elo's own updates. On Elo's scale 400 points are odds of 10 to 1, and the mean
of all models is 1000.

One drawn game is added between every two models as a prior (Caron and Doucet 2012), so that one that has won all its
games is not infinitely strong. An interval is the wider of two at either end: the bootstrap over prompts, since games
on one prompt are not independent, and the curvature of the likelihood, since resampling only won games varies nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jupyter_gpt.evaluation.metrics import Z95

DRAWN = 0.5  # a tie, and each side's share of the prior's game
MEAN, DECADE = 1000.0, 400.0
ROUNDS = 1000  # bootstrap resamples


@dataclass(frozen=True)
class Game:
    """`score` is 1 where `one` beat `other`, 0, or a half for a tie. Games of a `group` are resampled together."""

    one: int
    other: int
    score: float
    group: object = None


@dataclass(frozen=True)
class Rating:
    """Elo with its 95% interval, and the games it is from."""

    elo: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int

    @property
    def games(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def score(self) -> float | None:
        """The share of its games that it won, ties half; None without any."""
        return (self.wins + DRAWN * self.ties) / self.games if self.games else None


class Rate(NamedTuple):
    """A win rate and its 95% interval (None from one prompt alone)."""

    rate: float
    low: float | None
    high: float | None


def ratings(games: Sequence[Game], count: int, *, rounds: int = ROUNDS, seed: int = 0) -> list[Rating]:
    """The rating of each of `count` models, from all their games."""
    import numpy

    won = wins_by_group(games, count)
    log = strengths(won.sum(0))
    elo, half = scaled(log), Z95 * scaled(errors(won.sum(0), log), 0.0)
    low, high = elo - half, elo + half
    if len(won) > 1:
        ends = numpy.percentile(scaled(bootstrap(won, rounds, seed)), [2.5, 97.5], axis=0)
        low, high = numpy.minimum(low, ends[0]), numpy.maximum(high, ends[1])
    result = []
    for i in range(count):
        scores = [game.score if game.one == i else 1 - game.score for game in games if i in (game.one, game.other)]
        tally = scores.count(1), scores.count(DRAWN), scores.count(0)
        result.append(Rating(float(elo[i]), float(low[i]), float(high[i]), *tally))
    return result


def win_rates(games: Sequence[Game], count: int, against: int, *, rounds: int = ROUNDS, seed: int = 0) -> list[Rate]:
    """The probability of each of `count` models to beat model `against` (a half for that one itself).

    It is from all games, so that who beats a third model counts too.
    """
    import numpy

    def ahead(log):
        return log - log[..., against, None]

    def probability(odds) -> list:
        return (1 / (1 + numpy.exp(-odds))).tolist()

    won = wins_by_group(games, count)
    odds, low, high = ahead(strengths(won.sum(0))), [None] * count, [None] * count
    if len(won) > 1:
        shared = covariance(won.sum(0), odds)
        own = numpy.diag(shared)
        half = Z95 * numpy.sqrt(own + own[against] - 2 * shared[against])
        ends = numpy.percentile(ahead(bootstrap(won, rounds, seed)), [2.5, 97.5], axis=0)
        low, high = probability(numpy.minimum(odds - half, ends[0])), probability(numpy.maximum(odds + half, ends[1]))
    return [Rate(*each) for each in zip(probability(odds), low, high, strict=True)]


def by_score(one: int, scores: Sequence[float], other: int, others: Sequence[float], groups: Sequence) -> list[Game]:
    """A game per pair of scores: the higher one wins, equal ones tie."""
    return [
        Game(one, other, 1.0 if a > b else 0.0 if a < b else DRAWN, group)
        for a, b, group in zip(scores, others, groups, strict=True)
    ]


def wins_by_group(games: Sequence[Game], count: int):
    """(groups, count, count): how often model i beat model j in each group of games."""
    import numpy

    place = {group: i for i, group in enumerate(dict.fromkeys(game.group for game in games))}
    won = numpy.zeros((len(place), count, count))
    for game in games:
        won[place[game.group], game.one, game.other] += game.score
        won[place[game.group], game.other, game.one] += 1 - game.score
    return won


def bootstrap(won, rounds: int, seed: int):
    """(rounds, count): the strengths after resampling the groups with replacement."""
    import numpy

    times = numpy.random.default_rng(seed).multinomial(len(won), [1 / len(won)] * len(won), size=rounds)
    return strengths(numpy.einsum("rg,gij->rij", times, won))


def strengths(won, tolerance: float = 1e-9):
    """Logs of the strengths, (..., n) with mean 0, of the most likely model; won[..., i, j] is how often i beat j."""
    import numpy

    won = won + DRAWN * (1 - numpy.eye(won.shape[-1]))
    total, games = won.sum(-1), won + numpy.swapaxes(won, -1, -2)
    log = numpy.zeros(total.shape)
    for _ in range(10_000):
        p = numpy.exp(log)
        new = numpy.log(total) - numpy.log((games / (p[..., :, None] + p[..., None, :])).sum(-1))
        new -= new.mean(-1, keepdims=True)
        step, log = numpy.abs(new - log).max(), new
        if step < tolerance:
            break
    return log


def errors(won, log):
    """Standard errors of the log-strengths, (n,)."""
    import numpy

    return numpy.sqrt(numpy.diag(covariance(won, log)))


def covariance(won, log):
    """(n, n), of the log-strengths where they sum to 0: the pseudo-inverse of the negative Hessian."""
    import numpy

    games = won + won.T + 2 * DRAWN * (1 - numpy.eye(len(log)))
    probability = 1 / (1 + numpy.exp(log[None, :] - log[:, None]))
    weights = games * probability * (1 - probability)
    return numpy.linalg.pinv(numpy.diag(weights.sum(1)) - weights, hermitian=True)


def scaled(log, mean: float = MEAN):
    """Log-strengths as Elo."""
    return mean + DECADE * log / math.log(10)


def expected(elo: float, other: float) -> float:
    """The probability of beating the other, from the difference of two ratings."""
    return 1 / (1 + 10 ** ((other - elo) / DECADE))
