"""Charts of reports: what is drawn of a curve."""

from itertools import combinations

import numpy as np
import pytest

from jupyter_gpt.report import charts
from jupyter_gpt.report.charts import Group, Scatter, smooth


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


def test_labels_of_neighbouring_points_do_not_overlap_and_stay_within_the_axes():
    names = [
        "a small model --few-shot $examples",
        "a small model --system $book",
        "a small model --cot --samples 5 --vote",
    ]
    points = [(3.30, 20), (3.35, 20), (3.4, 21)]
    made = charts.draw(Scatter([Group("beaten", points, labels=names, written=True)], "GFLOP", "accuracy, %", log=True))
    (axes,) = made.axes
    inside, boxes = axes.get_window_extent(), [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 3 and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
