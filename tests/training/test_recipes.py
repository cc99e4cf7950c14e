"""Recipes read back: those of an earlier version too, as long as what they lack has a default."""

from dataclasses import dataclass

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.classify_loop import ClassifyRecipe, classify_recipe
from jupyter_gpt.stages.pretrain_recipe import Recipe, pretraining_recipe, read_back
from jupyter_gpt.stages.reward_recipe import RewardRecipe, reward_recipe
from jupyter_gpt.stages.rl_recipe import RLRecipe, rl_recipe
from jupyter_gpt.stages.sft_recipe import FinetuningRecipe, finetuning_recipe, for_base, with_tokens

RECIPES = [
    (Recipe, pretraining_recipe({"stories": 1.0}, steps=3)),
    (FinetuningRecipe, finetuning_recipe({"stories-qa": 1.0}, "base")),
    (ClassifyRecipe, classify_recipe("base")),
    (RewardRecipe, reward_recipe("base", "mine")),
    (RLRecipe, rl_recipe("base", ["Why?"], reward=["short"])),
]


@dataclass
class Newer:
    steps: int
    micro_tokens: int = 0


def test_a_field_that_is_newer_than_the_run_has_its_default():
    assert read_back(Newer, {"steps": 3}) == Newer(3, 0)
    for values, odd in (({"steps": 3, "lr": 1}, "lr"), ({"micro_tokens": 4}, "steps")):
        with pytest.raises(GPTError, match=rf"another version of jupyter_gpt \(its recipe differs in: {odd}\)"):
            read_back(Newer, values)


@pytest.mark.parametrize(("kind", "recipe"), RECIPES, ids=[kind.__name__ for kind, _ in RECIPES])
def test_every_recipe_is_read_back_as_it_was(kind, recipe):
    assert read_back(kind, recipe.as_dict()) == recipe


@pytest.mark.parametrize(("kind", "recipe"), [RECIPES[1], RECIPES[2]], ids=["sft", "classify"])
def test_a_run_from_before_bad_rows_could_be_skipped_goes_on(kind, recipe):
    values = recipe.as_dict()
    assert values.pop("bad_rows") in (None, "refuse")
    assert read_back(kind, values) == recipe


@pytest.mark.parametrize(
    ("tokens", "options", "batch", "steps"),
    [
        (20_000, {}, 2048, 10),
        (1_000_000, {}, 2048, 489),
        (18_000_000, {}, 16_384, 1099),
        (720_000_000, {}, 65_536, 10_987),
        (18_000_000, {"batch_tokens": 4096}, 4096, 4395),
        (50_000, {"context": 3000}, 3000, 17),
    ],
)
def test_the_batch_of_a_finetuning_follows_from_its_length_whatever_the_device(tokens, options, batch, steps):
    for device in ("cpu", "cuda"):
        recipe = with_tokens(
            for_base(finetuning_recipe({"x": 1.0}, "base", **options), 576, 8192, "float32", 10**8, device), tokens
        )
        assert (recipe.batch_tokens, recipe.steps) == (batch, steps)
    for length in ({"steps": 9}, {"minutes": 1.0}):  # in steps nobody knows of how many tokens before it begins
        assert (
            for_base(finetuning_recipe({"x": 1.0}, "base", **length), 576, 8192, "float32", 10**8, "cuda").batch_tokens
            == 2048
        )
