"""`gpt.pretrain`: the stage of runs that train a GPT from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.launch import launch


def pretrain(
    session,
    name: str,
    mixture: object = None,
    *,
    corpus: str | None = None,
    tokenizer: str = "bpe",
    background: bool = False,
    overwrite: bool = False,
    variables: Mapping | None = None,
    **options,
) -> Run:
    """Train a GPT from scratch on `mixture`, or on a declared `corpus`; the model is `gpt.models[name]`.

    `mixture` is a mapping from sources to weights, or its YAML; or the documents themselves: a list of texts or of
    rows, a Series, a DataFrame; or a Path. `tokenizer` is `bpe`, `char` or the name of a model; `options` are those of
    `jupyter_gpt.stages.pretrain_recipe.pretraining_recipe`. Blocks until the run ends, unless `background`; Ctrl-C
    stops it gracefully. `variables` serves `$name` sources. A model of that name is replaced where this very cell made
    it, or
    the same options on the same data (Run All); else only if `overwrite`.

    Raises GPTError, one line, for what cannot be trained; whatever had that name before is then untouched.
    """
    from jupyter_gpt import store
    from jupyter_gpt.data import mixture as mixtures
    from jupyter_gpt.data import sources
    from jupyter_gpt.stages.pretrain_recipe import pretraining_recipe

    store.check_name(name)
    if (mixture is None) == (corpus is None):
        raise GPTError("say what to train on: sources with weights in the body, or --corpus NAME, not both")
    weights = session.corpora[corpus].weights if corpus is not None else mixture
    weights, variables = mixtures.read(weights, variables)
    recipe = pretraining_recipe(weights, tokenizer=tokenizer, **options)
    if tokenizer not in ("bpe", "char") and tokenizer not in session.models:
        raise GPTError(f"--tokenizer {tokenizer} is neither bpe, char nor a model{nearest(tokenizer, session.models)}")
    if tokenizer not in ("bpe", "char") and options.get("vocab_size"):
        raise GPTError(
            f"--vocab-size is for a tokenizer that is trained here, not for that of {tokenizer}: leave it out"
        )
    for source in weights:
        sources.check(source, variables)
    return launch(
        session,
        name,
        "pretrain",
        recipe,
        {"mixture": weights, "tokenizer": tokenizer, **options},
        overwrite=overwrite,
        background=background,
        variables=variables,
    )


def recipe_from(values: dict):
    """The recipe that `recipe.yaml` holds."""
    from jupyter_gpt.stages.pretrain_recipe import Recipe

    return Recipe.from_dict(values)


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events, and at the end the training at step 0."""
    from jupyter_gpt.nn.devices import default_device
    from jupyter_gpt.stages.pretrain_prepare import prepare

    named = recipe.tokenizer if recipe.tokenizer not in ("bpe", "char") else None
    tokenizer = session.models[named].tokenizer if named else None
    return (yield from prepare(recipe, run.folder, default_device(), variables, tokenizer))


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    session.models.keep(
        run.name,
        training.model,
        training.tokenizer,
        run.kind,
        run.provenance,
        [f"{run.name} ({run.kind})"],
        training.step,
    )
