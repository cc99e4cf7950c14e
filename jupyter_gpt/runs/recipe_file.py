"""The recipe file of a run: what was made, what asked for it, from which recipe."""

from __future__ import annotations

from dataclasses import asdict

from jupyter_gpt import store
from jupyter_gpt.runs.provenance import Provenance


def header(provenance: Provenance, recipe: dict) -> str:
    """The text of `recipe.yaml`."""
    import yaml

    return yaml.safe_dump({**asdict(provenance), "recipe": recipe}, sort_keys=False, allow_unicode=True)


def write_recipe(run, recipe) -> None:
    """Keep the recipe of a run as it was resolved."""
    run.recipe = recipe.as_dict()
    store.write_text(run.folder / "recipe.yaml", header(run.provenance, run.recipe))
