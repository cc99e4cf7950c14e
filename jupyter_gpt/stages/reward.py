"""`gpt.reward`: the stage of runs that make a reward model from rankings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.models import REWARD_LABEL
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages import data_hashes as marks
from jupyter_gpt.stages.launch import launch

NEEDED = 4  # rankings that tell completions apart: one to be held out, and something to learn from


def reward(
    session,
    name: str,
    *,
    rankings: str,
    base: str | None = None,
    background: bool = False,
    overwrite: bool = False,
    variables: Mapping | None = None,
    **options,
) -> Run:
    """Train a reward model on `rankings`; it is `gpt.models[name]`, and `gpt.models[name].score(prompt, completion)`
    asks it.

    `base` is the model it is made from: by default the one whose completions were ranked. `options` are those of
    `jupyter_gpt.stages.reward_recipe.reward_recipe`. Blocks until the run ends, unless `background`.

    Raises GPTError, one line, for rankings that are too few or all ties, saying how many are there and missing.
    """
    from jupyter_gpt.stages.reward_recipe import reward_recipe

    store.check_name(name)
    found = session.rankings[rankings].need(NEEDED)
    base = base or ranked_model(session, rankings, found)
    check_base(session, base)
    recipe = reward_recipe(base, rankings, **options)
    recipe = replace(recipe, marks=inputs(session, recipe))
    return launch(
        session,
        name,
        "reward",
        recipe,
        {"rankings": rankings, "base": base, **options},
        overwrite=overwrite,
        background=background,
        variables=variables,
    )


def ranked_model(session, rankings: str, found) -> str:
    """The one model of the store whose completions were ranked. Raises GPTError where there is none, or several."""
    names = list(dict.fromkeys(each["model"] for ranking in found for each in ranking.completions))
    here = [name for name in names if name in session.models and session.models.about(name).kind != "endpoint"]
    if len(here) != 1:
        whose = f"are of {', '.join(filter(None, names))}" if any(names) else "do not say whose completions they are of"
        raise GPTError(f"say which model the reward model is made from, --base MODEL: rankings {rankings} {whose}")
    return here[0]


def check_base(session, base: str) -> None:
    """Raises GPTError for a model that is not here, is behind a server, or has a head of scores already."""
    model = session.models.about(base)
    if model.kind == "endpoint":
        raise GPTError(f"{base} is behind a server: its weights cannot be trained here, pull it or choose another")
    if model.labels:
        raise GPTError(f"{base} is a {model.kind} model, which writes no text: choose a language model")


def inputs(session, recipe) -> dict[str, str]:
    """Marks of the base and the rankings."""
    return marks.of_model(session, recipe.base) | marks.of_rankings(session, recipe.rankings)


def recipe_from(values: dict):
    """The recipe that `recipe.yaml` holds."""
    from jupyter_gpt.stages.pretrain_recipe import read_back
    from jupyter_gpt.stages.reward_recipe import RewardRecipe

    return read_back(RewardRecipe, values)


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events, and at the end the training at step 0."""
    from jupyter_gpt.stages.reward_prepare import prepare

    marks.check(run, recipe.marks, inputs(session, recipe))
    rankings = session.rankings[recipe.rankings]
    found = rankings.need(NEEDED)
    yield from ({"event": "note", "text": note} for note in rankings.notes)
    base = session.models[recipe.base]
    return (yield from prepare(recipe, base, found, session.models.to_train(base, not recipe.lora, recipe.dtype)))


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    keep_as(session, run.name, run.provenance, training)


def keep_as(session, name: str, made: Provenance, training) -> None:
    """Keep a reward model under `name`."""
    below = session.models.about(training.recipe.base)
    session.models.keep(
        name,
        training.model,
        training.tokenizer,
        "reward",
        made,
        [*below.lineage, f"{name} (reward)"],
        training.step,
        licence=below.licence,
        base=(below.base or below.name) if training.recipe.lora else None,
        labels=[REWARD_LABEL],
    )
