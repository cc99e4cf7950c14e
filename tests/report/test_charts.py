"""Charts of reports: what is drawn of a curve."""

import numpy as np
import pytest

from jupyter_gpt.report.charts import smooth


@pytest.mark.parametrize("count", [1, 4, 100, 1000])
def test_a_smoothed_curve_is_the_mean_of_the_values_around_it(count):
    values = np.random.default_rng(0).normal(size=count)
    half = max(2, count // 60)
    expected = [values[max(0, i - half) : i + half + 1].mean() for i in range(count)]
    np.testing.assert_allclose(smooth(list(values)), expected, atol=1e-12)


def test_a_smoothed_curve_does_not_lag():
    steps = np.arange(600.0)
    middle = slice(20, -20)
    np.testing.assert_allclose(smooth(list(5 - steps / 200))[middle], (5 - steps / 200)[middle])


def test_no_values():
    assert smooth([]) == []
