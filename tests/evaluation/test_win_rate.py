"""Win rates: of two by counting, of three through a third, and whether the interval holds the truth."""

import math
import random

import pytest

from jupyter_gpt.evaluation.bradley_terry import Game, by_score, win_rates
from jupyter_gpt.evaluation.metrics import wilson


def test_of_two_models_the_rate_is_the_share_of_games_won():
    games = [Game(0, 1, 1.0, n) for n in range(300)] + [Game(1, 0, 1.0, n) for n in range(300, 400)]
    one, itself = win_rates(games, 2, 1)
    assert one.rate == pytest.approx(0.75, abs=0.002) and itself.rate == pytest.approx(0.5)
    low, high = wilson(0.75, 400)
    assert one.low == pytest.approx(low, abs=0.015) and one.high == pytest.approx(high, abs=0.015)
    assert itself.low == itself.high == 0.5


def test_who_beats_a_third_counts():
    games = [Game(0, 2, 1.0, n) for n in range(60)] + [Game(0, 2, 0.0, n) for n in range(20)]
    games += [Game(2, 1, 0.5, n) for n in range(80)]
    assert win_rates(games, 3, 1)[0].rate == pytest.approx(0.75, abs=0.03)


def test_games_of_one_prompt_are_one_observation():
    lively = [Game(0, 1, float(n % 4 > 0), n) for n in range(40)]
    copied = [Game(0, 1, float(n % 4 > 0), n) for n in range(40) for _ in range(10)]
    one, ten = win_rates(lively, 2, 1)[0], win_rates(copied, 2, 1)[0]
    assert ten.high - ten.low > 0.8 * (one.high - one.low)
    assert win_rates([Game(0, 1, 1.0)], 2, 1)[0].low is None


def test_two_prompts_that_agree_do_not_make_it_certain():
    one = win_rates([Game(0, 1, 1.0, n) for n in range(2) for _ in range(8)], 2, 1)[0]
    assert one.low < one.rate - 0.05 and one.rate + 0.02 < one.high < 1


def test_the_truth_is_within_the_interval_about_as_often_as_promised():
    draw, inside = random.Random(1), 0
    truth = [0.8, 0.0, -0.8]
    for seed in range(100):
        games = []
        for n in range(90):
            a, b = draw.sample(range(3), 2)
            games.append(Game(a, b, float(draw.random() < 1 / (1 + math.exp(truth[b] - truth[a]))), n))
        _, low, high = win_rates(games, 3, 2, rounds=200, seed=seed)[0]
        inside += low < 1 / (1 + math.exp(-1.6)) < high
    assert inside >= 88


def test_the_higher_score_wins():
    games = by_score(0, [1.0, 2.0, 3.0], 1, [0.0, 2.0, 4.0], "abc")
    assert [game.score for game in games] == [1.0, 0.5, 0.0] and games[2].group == "c"


def test_wilson_holds_at_the_ends_and_in_the_middle():
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)
    assert wilson(0.3, 0) == (0.0, 1.0)
