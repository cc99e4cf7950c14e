"""Recipes read back, and what follows from base and data."""

import pytest

from helpers.recipes import classify_recipe, finetuning_recipe, pretraining_recipe, reward_recipe, rl_recipe
from jupyter_gpt.errors import GPTError

RECIPES = [
    pretraining_recipe({"stories": 1.0}, steps=3),
    finetuning_recipe({"stories-qa": 1.0}, "base"),
    classify_recipe("base"),
    reward_recipe("base", "mine"),
    rl_recipe("base", ["Why?"], reward=["short"]),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=[type(recipe).__name__ for recipe in RECIPES])
def test_every_recipe_is_read_back_as_it_was(recipe):
    kind, values = type(recipe), recipe.as_dict()
    assert kind.from_dict(values).as_dict() == values
    for odd in ({**values, "learning_speed": 1}, {key: value for key, value in values.items() if key != "seed"}):
        with pytest.raises(
            GPTError, match=r"another version of jupyter_gpt \(its recipe differs in: (learning_speed|seed)"
        ):
            kind.from_dict(odd)
    with pytest.raises(GPTError, match="seed"):
        kind.from_dict({**values, "seed": "many"})


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
def test_the_batch_of_a_finetuning_follows_from_its_length(tokens, options, batch, steps):
    recipe = finetuning_recipe({"x": 1.0}, "base", **options).for_base(576, 8192, "float32").with_tokens(tokens)
    assert (recipe.batch_tokens, recipe.steps) == (batch, steps)
    for length in ({"steps": 9}, {"minutes": 1.0}):  # in steps nobody knows of how many tokens before it begins
        recipe = finetuning_recipe({"x": 1.0}, "base", **length)
        assert recipe.for_base(576, 8192, "float32").batch_tokens == 2048


@pytest.mark.parametrize(
    ("width", "options", "lr"),
    [
        (576, {"lora": 8}, 1e-3),
        (256, {"lora": 8}, 5e-3),
        (1024, {"lora": 8}, 5.625e-4),
        (576, {}, 1e-4),
        (2048, {}, 2.8125e-5),
    ],
)
def test_the_learning_rate_follows_from_the_width(width, options, lr):
    recipe = finetuning_recipe({"x": 1.0}, "base", **options).for_base(width, 8192, "float32")
    assert (recipe.optimizer, recipe.lr) == ("adamw", pytest.approx(lr))
