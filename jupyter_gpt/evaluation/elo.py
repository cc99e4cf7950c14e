"""Ratings from games between two: Bradley-Terry strengths on the scale of Elo, with intervals.

Whoever has strength p_i beats whoever has p_j with chance p_i / (p_i + p_j) (Bradley and Terry 1952); a tie counts half
a game for each. Strengths are fitted by the iteration of Hunter (2004, MM algorithms for generalized Bradley-Terry
models, equation 3), all games at once, so that their order does not matter as it does in Elo's own updates. On Elo's
scale 400
points are odds of ten to one, and the mean of all is 1000.

One drawn game is added between every two, as a prior (Caron and Doucet 2012): who has won every game so far is not
infinitely strong. Two intervals are reckoned, one by the bootstrap over prompts, since games on one prompt are not
independent, one from the curvature of the likelihood, since drawing again from games that were all won gives nothing
but games that were all won; the wider end of both is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jupyter_gpt.evaluation.intervals import Z95

DRAWN = 0.5  # a tie, and each side's share of the prior's game
MEAN, DECADE = 1000.0, 400.0
ROUNDS = 1000


@dataclass(frozen=True)
class Game:
    """`score` is what `one` got against `other`: 1, 0, or a half for a tie. Games of one `group` are resampled
    together.
    """

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


def ratings(games: Sequence[Game], count: int, *, rounds: int = ROUNDS, seed: int = 0) -> list[Rating]:
    """The rating of each of `count` players, from all their games."""
    import numpy

    groups = list(dict.fromkeys(game.group for game in games))
    place = {group: i for i, group in enumerate(groups)}
    won = numpy.zeros((len(groups), count, count))  # won[g, i, j]: how often i beat j in group g
    for game in games:
        won[place[game.group], game.one, game.other] += game.score
        won[place[game.group], game.other, game.one] += 1 - game.score
    log = strengths(won.sum(0))
    elo, half = scaled(log), Z95 * scaled(errors(won.sum(0), log), 0.0)
    low, high = elo - half, elo + half
    if len(groups) > 1:
        random = numpy.random.default_rng(seed)
        times = random.multinomial(len(groups), numpy.full(len(groups), 1 / len(groups)), size=rounds)
        drawn = scaled(strengths(numpy.einsum("rg,gij->rij", times, won)))
        ends = numpy.percentile(drawn, [2.5, 97.5], axis=0)
        low, high = numpy.minimum(low, ends[0]), numpy.maximum(high, ends[1])
    found = []
    for i in range(count):
        scores = [game.score if game.one == i else 1 - game.score for game in games if i in (game.one, game.other)]
        tally = scores.count(1), scores.count(DRAWN), scores.count(0)
        found.append(Rating(float(elo[i]), float(low[i]), float(high[i]), *tally))
    return found


def strengths(won, tolerance: float = 1e-9):
    """Logs of the strengths, (..., n) with mean 0, of the most likely Bradley-Terry model; won[..., i, j] as above."""
    import numpy

    n = won.shape[-1]
    won = won + DRAWN * (1 - numpy.eye(n))
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
    """That of the log-strengths, (n, n), where they sum to 0: the pseudo-inverse of the negative Hessian."""
    import numpy

    games = won + won.T + 2 * DRAWN * (1 - numpy.eye(len(log)))
    chance = 1 / (1 + numpy.exp(log[None, :] - log[:, None]))
    weights = games * chance * (1 - chance)
    return numpy.linalg.pinv(numpy.diag(weights.sum(1)) - weights, hermitian=True)


def scaled(log, mean: float = MEAN):
    """Log-strengths as Elo."""
    return mean + DECADE * log / math.log(10)


def expected(elo: float, other: float) -> float:
    """The chance of beating the other, from the difference of two ratings."""
    return 1 / (1 + 10 ** ((other - elo) / DECADE))
