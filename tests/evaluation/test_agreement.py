"""Kendall's W against scipy's Friedman statistic, and against values worked out by hand."""

import random
from fractions import Fraction

import pytest

from jupyter_gpt.evaluation.metrics import kendalls_w, ranks


def test_ranks_of_ties_share_their_mean():
    assert ranks([[2], [0, 3], [1]]) == [2.5, 4.0, 1.0, 2.5]
    assert ranks([[0, 1, 2]]) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("orders", "w"),
    [
        ([[[0], [1], [2]]] * 3, 1),
        ([[[0], [1], [2]], [[2], [1], [0]]], 0),
        ([[[0, 1], [2]]] * 4, 1),  # all of one mind, ties and all
        # ranks 1, 2, 3 and 1, 2.5, 2.5: R = 2, 4.5, 5.5 about 4, S = 6.5, one group of two: 12 S / (4 * 24 - 2 * 6)
        ([[[0], [1], [2]], [[0], [1, 2]]], Fraction(78, 84)),
        # three labellers of four things: R = 4, 6, 9, 11, mean 7.5: S = 29; 12 * 29 / (9 * 60) = 29 / 45
        ([[[0], [1], [2], [3]], [[1], [0], [3], [2]], [[0], [2], [1], [3]]], Fraction(29, 45)),
    ],
)
def test_by_hand(orders, w):
    assert kendalls_w(orders) == pytest.approx(float(w))


def test_everything_tied_says_nothing():
    assert kendalls_w([[[0, 1, 2]], [[0, 1, 2]]]) is None


@pytest.mark.parametrize("seed", range(20))
def test_as_scipy_has_it_ties_included(seed):
    stats = pytest.importorskip("scipy.stats")
    rng = random.Random(seed)
    m, n = rng.randint(3, 6), rng.randint(3, 7)
    scores = [[rng.randint(0, 4) for _ in range(n)] for _ in range(m)]
    orders = [[[i for i in range(n) if row[i] == v] for v in sorted(set(row))] for row in scores]
    chi_squared = stats.friedmanchisquare(*zip(*scores, strict=True)).statistic  # = m (n - 1) W, corrected for ties
    assert kendalls_w(orders) == pytest.approx(chi_squared / (m * (n - 1)), nan_ok=True)


def test_by_lot_it_is_one_over_m():
    rng = random.Random(0)
    found = [kendalls_w([[[i] for i in rng.sample(range(5), 5)] for _ in range(4)]) for _ in range(2000)]
    assert sum(found) / len(found) == pytest.approx(1 / 4, abs=0.01)


def test_what_has_no_agreement():
    with pytest.raises(ValueError, match="two annotators"):
        kendalls_w([[[0], [1]]])
    with pytest.raises(ValueError, match="not of the same"):
        kendalls_w([[[0], [1]], [[0], [2]]])
