"""Estimates against closed forms, a published example and a brute-force bootstrap."""

import math

import numpy
import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.estimates import difference, estimate, proportion
from jupyter_gpt.evaluation.metrics import wilson


def test_outcomes_are_a_proportion_with_wilsons_interval():
    found = estimate([True, False, True, True])
    assert (found.value, found.share) == (0.75, True)
    assert (found.low, found.high) == wilson(0.75, 4)


def test_numbers_are_a_mean_whose_interval_has_the_width_of_the_standard_error():
    values = numpy.random.default_rng(1).normal(3, 2, 400)
    found = estimate(values)
    error = values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(1.96 * error, rel=0.05)
    assert found.value - found.low == pytest.approx(1.96 * error, rel=0.05)


def test_a_single_figure_has_no_interval():
    assert not estimate(2.5).has_interval
    assert not estimate(numpy.float32(2.5)).has_interval


def test_the_difference_of_independent_proportions_is_newcombes():
    # 56/70 against 48/80: 0.0524 to 0.3339 (Newcombe 1998, Interval estimation for the difference, table II, method 10)
    found = difference(proportion(56, 70), proportion(48, 80))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_paired_outcomes_have_a_narrower_interval_than_independent_ones():
    one = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0] * 10
    other = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0] * 10  # wrong wherever the first is, and once more
    paired, independent = (
        difference(estimate(one), estimate(other)),
        difference(proportion(50, 100), proportion(40, 100)),
    )
    assert paired.low > 0 > independent.low
    assert paired.value == independent.value == pytest.approx(0.1)


def test_pairs_that_are_all_alike_have_newcombes_interval():
    sure, small = difference(estimate([1] * 3), estimate([0] * 3)), difference(estimate([True]), estimate([False]))
    assert (sure.low, sure.high) == pytest.approx((1 - math.sqrt(2) * (1 - wilson(1.0, 3)[0]), 1.0))
    assert small.low < 0 < small.value == small.high == 1.0  # Newcombe's paired interval, with no correlation: the same
    same = difference(estimate([1] * 5), estimate([1] * 5))
    assert same.low < 0 == same.value < same.high


@pytest.mark.parametrize("wrong", [[], "text", None, [1, None], float("nan"), [1.0, float("inf")], {}])
def test_what_is_no_figure_is_one_line(wrong):
    with pytest.raises(GPTError, match="expected"):
        estimate(wrong)
