"""`%%rlhf` and `%gpt reward` as a notebook without a person runs them."""

import inspect

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.magics import rlhf
from jupyter_gpt.notebook.magics.options import help_text, parse
from jupyter_gpt.notebook.magics.verbs.reward import REWARD
from jupyter_gpt.session import Session
from jupyter_gpt.stages.reward_recipe import reward_recipe
from jupyter_gpt.stages.rl_recipe import rl_recipe

OPTIONS = {"name", "policy", "out", "background", "overwrite", "beside", "dtype"}


def polite(prompt, completion):
    return 1.0


def test_a_line_becomes_what_the_session_takes():
    line = (
        "aligned --policy assistant --algo grpo --reward $polite judge --weights 1 0.5 --steps 40 --kl 0.1 --samples 8"
    )
    given = parse(rlhf.COMMAND, line, {"polite": polite})
    assert given["reward"] == [polite, "judge"] and given["weights"] == [1.0, 0.5] and given["steps"] == 40


def test_every_option_is_one_of_the_recipe():
    given = {option.key for _, options in rlhf.COMMAND.groups for option in options} - OPTIONS
    recipe = rl_recipe("assistant", ["a"], reward=["$polite"])
    assert not {key for key in given if not hasattr(recipe, key)}
    given = {option.key for _, options in REWARD.groups for option in options} - OPTIONS - {"base"}
    assert not {key for key in given if not hasattr(reward_recipe("a", "b"), key)}


def test_defaults_that_the_help_promises_are_the_recipes():
    recipe = rl_recipe("assistant", ["a"], reward=["$polite"], algo="ppo")
    for _, options in rlhf.COMMAND.groups:
        for option in options:
            if option.default is not None and option.key not in ("algo", "seed"):
                assert getattr(recipe, option.key) == option.default, option.name
    assert "--kl-target" in help_text(rlhf.COMMAND)
    reward = reward_recipe("a", "b", lora=16)
    for _, options in REWARD.groups:
        for option in options:
            if option.default is not None and option.key != "seed":
                assert getattr(reward, option.key) == option.default, option.name


def test_the_magic_python_and_the_recipe_default_to_one_algorithm():
    defaults = [inspect.signature(function).parameters["algo"].default for function in (Session.rlhf, rl_recipe)]
    recipe = rl_recipe("assistant", ["a"], reward=["$polite"])
    assert {rlhf.COMMAND.flags["--algo"].default, recipe.algo, *defaults} == {"ppo"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a", "wants --policy"),
        ("a --policy m --algo pop", "ppo"),
        ("a --policy m --reward $nobody", "no variable nobody"),
        ("a --policy m --steps x", "whole number"),
        ("a --policy m --missing-eos-penalty much", "a number"),
    ],
)
def test_bad_lines_are_one_line(line, message):
    with pytest.raises(GPTError, match=message) as error:
        parse(rlhf.COMMAND, line, {"polite": polite})
    assert "\n" not in str(error.value)
