"""`gpt.classify`: the stage of runs that make a classifier of a base model, and what a classifier says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import adapters
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.launch import launch


def classify(
    session,
    name: str,
    data: object = None,
    base: str | None = None,
    *,
    background: bool = False,
    overwrite: bool = False,
    variables: Mapping | None = None,
    **options,
) -> Run:
    """Make a classifier of `base` from labelled texts; it is `gpt.models[name]`, and `.predict(texts)` asks it.

    `data` is the text of a cell (`text<tab>label` lines, rows as JSON, files, `$variables`), or a list of (text, label)
    pairs or rows, a DataFrame, or a Path. `options` are those of `jupyter_gpt.stages.classify_loop.classify_recipe`:
    `lora=16` trains an adapter, `from_scratch=True` the same architecture from random weights. Blocks until the run
    ends, unless
    `background`.

    Raises GPTError, one line, for what cannot be learned from: labels that occur once, a text without one.
    """
    from jupyter_gpt.data import labelled
    from jupyter_gpt.stages.classify_loop import classify_recipe
    from jupyter_gpt.stages.sft import startable

    store.check_name(name)
    if base is None:
        raise GPTError("say what to make a classifier of: --base MODEL")
    if data is None or (isinstance(data, str) and not data.strip()):
        raise GPTError(f"say what to learn from: {labelled.WANTED}, a file or a $variable in the body")
    if base == name:
        raise GPTError(f"{name} would replace the model it is made from: choose another name")
    start = startable(session, base)
    if start.base:
        raise GPTError(f"{base} is an adapter of {start.base}: %gpt merge {base} NAME first, then --base NAME")
    if isinstance(data, Path):
        data = str(data)
    elif not isinstance(data, str):
        data, variables = "$data", {**(variables or {}), "data": data}
    labelled.check(labelled.read(data, variables, options.get("bad_rows", "refuse")))
    recipe = classify_recipe(base, cell=data, base_mark=adapters.mark(start.folder), **options)
    return launch(
        session,
        name,
        "classify",
        recipe,
        {"cell": data, "base": base, **options},
        overwrite=overwrite,
        background=background,
        variables=variables,
    )


def recipe_from(values: dict):
    """The recipe that `recipe.yaml` holds."""
    from jupyter_gpt.stages.classify_loop import ClassifyRecipe

    return ClassifyRecipe.from_dict(values)


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events, and at the end the training at step 0."""
    from jupyter_gpt.data.labelled import read
    from jupyter_gpt.stages.classify_loop import prepare

    yield {"event": "progress", "stage": f"loading {recipe.base}", "done": 0, "total": None, "unit": "parameters"}
    base = session.models[recipe.base]
    if recipe.base_mark != adapters.mark(base.folder):
        raise GPTError(f"{recipe.base} is not what {run.name} began with: run its cell again")
    there = (run.folder / "data" / "texts.json").exists()
    skipped: list[str] = []
    texts = None if there else read(recipe.cell, variables, recipe.bad_rows, skipped)
    module = session.models.to_train(base, not (recipe.lora or recipe.from_scratch), recipe.dtype)
    return (yield from prepare(recipe, run.folder, module, base.tokenizer, texts, skipped))


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    base = session.models.about(training.recipe.base)
    before = [] if training.recipe.from_scratch else base.lineage
    options = {"base": base.name} if training.recipe.lora else {}
    session.models.keep(
        run.name,
        training.model,
        training.tokenizer,
        run.kind,
        run.provenance,
        [*before, f"{run.name} (classify)"],
        training.step,
        licence=None if training.recipe.from_scratch else base.licence,
        labels=training.labels,
        **options,
    )
