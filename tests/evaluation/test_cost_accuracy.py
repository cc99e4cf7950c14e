"""The recommendation: the best, and the cheapest within its interval."""

import pytest

from jupyter_gpt.evaluation.tasks import task_of
from jupyter_gpt.stages.evaluate import Evaluation, Setting, front, price, recommended, summarize


def setting(name, right, tokens, cost=None, flops=None):
    return Setting("m", name, 100, right, 0, 0, tokens, 0, 1.0, cost, flops)


def test_the_cheapest_within_the_interval_of_the_best():
    direct, cot, vote = setting("direct", 40, 10), setting("cot", 85, 100), setting("vote", 90, 2000)
    best, cheap = recommended([direct, vote, cot])
    assert (best, cheap) == (vote, cot), "90 of 100 is 82.6 to 94.5%"
    evaluation = Evaluation(task_of([("?", "1")]), [direct, vote, cot], [], 0, [])
    assert (evaluation.best, evaluation.cheapest) == (vote, cot)
    assert recommended([direct, vote]) == (vote, vote)
    assert front([vote, direct, cot]) == [direct, cot, vote]
    assert setting("worse", 40, 90) not in front([direct, setting("worse", 40, 90), cot])


def test_equals_are_told_apart_by_their_cost():
    dear, cheap = setting("dear", 90, 200), setting("cheap", 90, 100)
    assert recommended([dear, cheap]) == (cheap, cheap)


def test_what_settings_are_compared_by():
    priced = [setting("a", 1, 10, cost=0.5), setting("b", 1, 10, cost=1.0)]
    assert price(priced) == ("dollars a question", [0.005, 0.01])
    kernel = [setting("a", 1, 10, flops=1e11), setting("b", 1, 10, cost=1.0, flops=2e11)]
    assert price(kernel) == ("GFLOP a question", [1.0, 2.0])
    assert price([setting("a", 1, 100), *priced]) == ("tokens a question", [1.0, 0.1, 0.1])


def test_sums_and_the_interval():
    row = {"right": True, "answer": "x", "cut": False, "tokens_in": 3, "tokens_out": 2, "seconds": 0.5, "cost": 0.1}
    found = summarize(
        "m", "t", [row, {**row, "right": False, "answer": None, "cut": True, "cost": 0.2}], parameters=1000
    )
    assert (found.right, found.silent, found.cut, found.tokens_in, found.tokens_out, found.seconds) == (
        1,
        1,
        1,
        6,
        4,
        1.0,
    )
    assert found.cost == pytest.approx(0.3) and found.flops == 2 * 1000 * 10
    assert summarize("m", "t", [row, {**row, "cost": None}], None).cost is None
    assert found.interval == pytest.approx(
        (0.0945, 0.9055), abs=1e-4
    )  # statsmodels proportion_confint(1, 2, method="wilson")
