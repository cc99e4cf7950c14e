"""The learning-rate schedule, point by point."""

from itertools import pairwise

import pytest

from helpers.recipes import finetuning_recipe, pretraining_recipe
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.schedule import multiplier


def test_warm_up_plateau_and_decay():
    factors = [multiplier(step, 100, warmup=0.1, decay=0.4) for step in range(1, 101)]
    assert factors[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert set(factors[10:60]) == {1.0}
    fall = factors[60:]
    assert all(a > b for a, b in pairwise(fall))
    assert fall[0] < 1.0 and 0 < fall[-1] < 0.03  # the last step still moves


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_short_runs_keep_every_factor_in_range(steps):
    for warmup in (0.0, 0.01, 0.5):
        for decay in (0.0, 0.4, 0.99):
            factors = [multiplier(step, steps, warmup, decay) for step in range(1, steps + 1)]
            assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize("steps", [2, 5, 15, 25, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.9])
def test_it_rises_and_falls_without_a_jump(steps, warmup):
    """Also where the shares are rounded up, or together are more than the run, as in a recipe of an earlier version."""
    for decay in (1 - warmup, 0.95):
        factors = [multiplier(step, steps, warmup, decay) for step in range(1, steps + 1)]
        top = factors.index(max(factors))
        assert factors == sorted(factors[: top + 1]) + sorted(factors[top + 1 :], reverse=True)
        slopes = {round(a - b, 9) for a, b in pairwise(factors[top:]) if a != b}
        assert len(slopes) <= 1, "the fall is a straight line"


@pytest.mark.parametrize("recipe", [pretraining_recipe, lambda data, **more: finetuning_recipe(data, "base", **more)])
def test_a_recipe_has_room_for_warm_up_and_decay(recipe):
    for given in ({"warmup": 0.9}, {"decay": 0.995}, {"warmup": 0.4, "decay": 0.6}):
        made = recipe({"stories": 1.0}, **given)
        assert made.warmup + made.decay == pytest.approx(1.0) or made.warmup + made.decay < 1
        assert all(getattr(made, name) == value for name, value in given.items())
    with pytest.raises(
        GPTError, match=r"--warmup 0.6 and --decay 0.6 are shares of the steps: together they are at most 1"
    ):
        recipe({"stories": 1.0}, warmup=0.6, decay=0.6)
