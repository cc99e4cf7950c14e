"""Ratings: Bradley-Terry against a closed form and against scipy's optimiser; whether the intervals hold what they
promise."""

from __future__ import annotations

import math
import random

import numpy
import pytest

from jupyter_gpt.evaluation.bradley_terry import Game, errors, expected, ratings, strengths


def table(count: int, games) -> numpy.ndarray:
    won = numpy.zeros((count, count))
    for one, other, score in games:
        won[one, other] += score
        won[other, one] += 1 - score
    return won


def test_two_players_have_a_closed_form():
    games = [Game(0, 1, score, i) for i, score in enumerate([1, 1, 1, 1, 0, 0.5])]
    first, second = ratings(games, 2)
    odds = (4.5 + 0.5) / (1.5 + 0.5)  # each side has half of the drawn game that is added
    assert first.elo - second.elo == pytest.approx(400 * math.log10(odds))
    assert first.elo + second.elo == pytest.approx(2000)
    assert (first.wins, first.ties, first.losses, first.games) == (4, 1, 1, 6)
    assert first.score == pytest.approx(4.5 / 6) and second.score == pytest.approx(1.5 / 6)
    assert first.low < first.elo < first.high
    assert expected(first.elo, second.elo) == pytest.approx(odds / (1 + odds))


def random_games(
    rng: random.Random, strength: list[float], rounds: int, ties: float = 0.15
) -> list[tuple[int, int, float]]:
    found = []
    for _ in range(rounds):
        one, other = rng.sample(range(len(strength)), 2)
        chance = 1 / (1 + math.exp(strength[other] - strength[one]))
        found.append((one, other, 0.5 if rng.random() < ties else float(rng.random() < chance)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_strengths_are_those_of_an_optimiser_that_knows_only_the_likelihood(seed):
    optimize = pytest.importorskip("scipy.optimize")
    rng = random.Random(seed)
    n = rng.randint(3, 6)
    won = table(n, random_games(rng, [rng.gauss(0, 1.5) for _ in range(n)], 60))
    prior = 0.5 * (1 - numpy.eye(n))

    def loss(log):
        return float(((won + prior) * numpy.logaddexp(0, log[None, :] - log[:, None])).sum())

    best = optimize.minimize(loss, numpy.zeros(n), method="BFGS", options={"gtol": 1e-9}).x
    log = strengths(won)
    assert log == pytest.approx(best - best.mean(), abs=1e-4)

    step, hessian = 1e-4, numpy.zeros((n, n))  # numerical curvature; its pseudo-inverse is the covariance
    for i in range(n):
        for j in range(n):
            for a, b, sign in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
                at = log.copy()
                at[i] += a * step
                at[j] += b * step
                hessian[i, j] += sign * loss(at) / (4 * step * step)
    assert errors(won, log) == pytest.approx(numpy.sqrt(numpy.diag(numpy.linalg.pinv(hessian, rcond=1e-6))), rel=1e-3)


def test_the_order_of_games_does_not_matter():
    games = [Game(*game, i % 5) for i, game in enumerate(random_games(random.Random(3), [0, 1, 2], 30))]
    assert [r.elo for r in ratings(games, 3)] == pytest.approx([r.elo for r in ratings(games[::-1], 3)])


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    rng, truth = random.Random(0), [-1.0, -0.2, 0.3, 0.9]
    held = total = 0
    for trial in range(60):
        games = [Game(*game, i) for i, game in enumerate(random_games(rng, truth, 80, ties=0))]
        for rating, strength in zip(ratings(games, 4, rounds=200, seed=trial), truth, strict=True):
            held += rating.low <= 1000 + 400 * strength / math.log(10) <= rating.high
            total += 1
    assert held / total > 0.9


def test_who_won_all_is_strong_but_not_infinitely_and_nobody_knows_how_strong():
    games = [Game(0, 1, 1.0, i) for i in range(12)]
    first, _ = ratings(games, 2)
    assert 1200 < first.elo < 1400 and first.high - first.low > 300


def test_one_prompt_has_an_interval_too():
    first, _ = ratings([Game(0, 1, 1.0, "p")], 2)
    assert first.low < 1000 < first.elo < first.high


def test_nobody_has_played():
    found = ratings([], 3)
    assert [r.elo for r in found] == pytest.approx([1000] * 3) and found[0].score is None
