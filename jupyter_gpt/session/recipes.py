"""The recipe file of a run: what was made, by which cell, from which recipe."""

from __future__ import annotations

from jupyter_gpt.session import store


def header(kind: str, maker: str | None, recipe: dict) -> str:
    """The text of `recipe.yaml`."""
    import yaml

    return yaml.safe_dump({"kind": kind, "maker": maker, "recipe": recipe}, sort_keys=False, allow_unicode=True)


def write_recipe(run, recipe) -> None:
    """Keep the recipe of a run as it was resolved."""
    run.recipe = recipe.as_dict()
    store.write_text(run.folder / "recipe.yaml", header(run.kind, run.maker, run.recipe))
