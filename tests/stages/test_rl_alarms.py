"""Alarms of RL: told once, when what they tell of begins, and again only after it was over."""

from types import SimpleNamespace

import pytest

from helpers.recipes import rl_recipe
from jupyter_gpt.stages.rl_alarms import alarms


def raised(steps: list[dict], algo: str = "ppo") -> list[tuple[int, str, str]]:
    """(step, cause, text) of every alarm of a run whose steps tell `steps`; its first entropy is 2 nats."""
    recipe = rl_recipe("s", ["Why?"], algo=algo, reward=["$polite"], rankings="taste")
    training = SimpleNamespace(recipe=recipe, step=0, first_entropy=2.0, constant=0, alarmed=[])
    found = []
    for told in steps:
        training.step += 1
        found += [(event.step, event.cause, event.text) for event in alarms(training, told)]
    return found


FINE = {"kl": 3.0, "entropy": 1.5, "identical": 0.2, "spread": 0.5, "reward": 0.1}


@pytest.mark.parametrize(
    ("odd", "cause", "text"),
    [
        ({"kl": 31.0}, "kl", "31.0 nats per completion, over the limit of 30"),
        ({"entropy": 0.4}, "collapse", "its entropy fell from 2.00 to 0.40 nats per token"),
        ({"identical": 0.95}, "collapse", "95% of its completions of a prompt are the same"),
    ],
)
def test_each_is_told_when_it_begins_and_says_what_to_do(odd, cause, text):
    bad = {**FINE, **odd}
    found = raised([FINE, bad, bad, FINE, bad])
    assert [(step, which) for step, which, _ in found] == [(2, cause), (5, cause)]
    assert text in found[0][2] and "Raise --kl (now 0.05)" in found[0][2]


def test_lower_entropy_alone_is_no_collapse():
    assert not raised([FINE, {**FINE, "entropy": 0.7}])


@pytest.mark.parametrize(
    ("algo", "whose"), [("ppo", "all completions had"), ("grpo", "all completions of each prompt had")]
)
def test_rewards_that_do_not_differ_are_told_once_a_run(algo, whose):
    same = {**FINE, "spread": 0.0}
    assert not raised([FINE, same, same, FINE, same, same, FINE], algo)
    found = raised([same] * 5 + [FINE] + [same] * 9, algo)
    assert [(step, cause) for step, cause, _ in found] == [(3, "constant")]
    assert f"in the last 3 steps {whose} the same reward" in found[0][2] and "The run goes on" in found[0][2]
    assert "more --samples (now 8)" in found[0][2] and "harder prompts" in found[0][2]
