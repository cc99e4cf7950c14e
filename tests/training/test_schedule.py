"""The learning-rate schedule, point by point."""

from itertools import pairwise

import pytest

from jupyter_gpt.training.schedule import multiplier


def test_warm_up_plateau_and_decay():
    factors = [multiplier(step, 100, warmup=0.1, decay=0.4) for step in range(1, 101)]
    assert factors[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert set(factors[10:60]) == {1.0}
    fall = factors[60:]
    assert all(a > b for a, b in pairwise(fall))
    assert fall[0] < 1.0 and 0 < fall[-1] < 0.03  # the last step still moves


def test_the_floor_is_where_the_decay_ends():
    assert multiplier(100, 100, 0.0, 0.5, floor=0.2) == pytest.approx(0.2 + 0.8 / 51)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_short_runs_keep_every_factor_in_range(steps):
    for warmup in (0.0, 0.01, 0.5):
        for decay in (0.0, 0.4, 0.99):
            factors = [multiplier(step, steps, warmup, decay) for step in range(1, steps + 1)]
            assert all(0 < factor <= 1 for factor in factors)
