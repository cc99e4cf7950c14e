"""`gpt.sft`: the stage of runs that finetune a model on conversations, in full or with an adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import adapters
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.launch import launch


def sft(
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
    """Finetune `base` on conversations; the model is `gpt.models[name]`.

    `data` is a mixture of sources with weights, the text of a cell (such a mixture in YAML, or turns of conversations),
    or a list of rows in any form that a file may have, a DataFrame, a Path. `options` are those of
    `jupyter_gpt.stages.sft_recipe.finetuning_recipe`: `lora=16` trains an adapter, `steps`, `tokens`, `minutes` or
    `epochs` set the length. Blocks until the run ends, unless `background`; Ctrl-C stops it gracefully.

    Raises GPTError, one line, for what cannot be trained; whatever had that name before is then untouched.
    """
    from jupyter_gpt import store
    from jupyter_gpt.data import conversations
    from jupyter_gpt.models.load import check_load_in
    from jupyter_gpt.stages.sft_recipe import finetuning_recipe

    store.check_name(name)
    if base is None:
        raise GPTError("say what to finetune: --base MODEL")
    if data is None:
        raise GPTError("say what to train on: sources with weights, or conversations, in the body")
    mixture, cell, variables = read_data(data, variables, options.get("bad_rows"))
    start = startable(session, base)
    if base == name:
        raise GPTError(f"{name} would replace the model it is made from: choose another name")
    merge_first, rank = options.get("merge_first", False), options.get("lora")
    if merge_first and not start.base:
        raise GPTError(f"{base} is no adapter: there is nothing to merge first")
    if merge_first and rank:
        raise GPTError(
            f"--lora on merged weights needs them as a model of their own: %gpt merge {base} NAME, then --base NAME"
        )
    if start.base and rank:
        raise GPTError(
            f"{base} is an adapter of {start.base}: leave --lora out to go on with a copy of it, or --merge-first "
            "to train all weights"
        )
    root = session.models.about(session.models.base_of(start)) if start.base else start
    recipe = finetuning_recipe(
        mixture,
        root.name,
        cell=cell,
        base_mark=adapters.mark(root.folder),
        adapter=base if start.base else None,
        **options,
    )
    check_load_in(recipe.load_in)
    for source in mixture:
        conversations.check(source, variables, cell, recipe.bad_rows)
    return launch(
        session,
        name,
        "sft",
        recipe,
        {"mixture": mixture, "cell": cell, "base": base, **options},
        overwrite=overwrite,
        background=background,
        variables=variables,
    )


def read_data(
    data, variables: Mapping | None, bad_rows: str | None = None
) -> tuple[dict[str, float], str | None, Mapping | None]:
    """The mixture, the cell's conversations where it has them, and the variables, with a list of rows as one of
    them.
    """
    from jupyter_gpt.data import conversations, mixture

    if isinstance(data, str):
        parsed = conversations.parse(data, bad_rows)
        return ({conversations.CELL: 1.0}, parsed, variables) if isinstance(parsed, str) else (parsed, None, variables)
    weights, variables = mixture.read(data, variables)
    return weights, None, variables


def startable(session, base: str):
    """The model to start from. Raises GPTError for one behind a server, and for one that does not speak."""
    session.finish_first(base)
    start = session.models.about(base)
    if start.kind == "endpoint":
        raise GPTError(f"{base} is behind a server: only a model of this kernel can be trained")
    if start.labels:
        raise GPTError(f"{base} ({start.kind}) answers with numbers: finetune the model it was made from")
    return start


def recipe_from(values: dict):
    """The recipe that `recipe.yaml` holds."""
    from jupyter_gpt.stages.sft_recipe import FinetuningRecipe

    return FinetuningRecipe.from_dict(values)


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events, and at the end the training at step 0."""
    from jupyter_gpt.models.load import quantised, tokenizer_of
    from jupyter_gpt.stages.sft_prepare import check_room, prepare

    yield {"event": "progress", "stage": f"loading {recipe.base}", "done": 0, "total": None, "unit": "parameters"}
    if recipe.base_mark != adapters.mark(session.models.about(recipe.base).folder):
        raise GPTError(f"{recipe.base} is not what {run.name} began with: run its cell again")
    if recipe.load_in:  # in few bits, and not beside them as it is
        start = session.models.about(recipe.base)
        base, tokenizer = quantised(start, recipe.load_in), start.tokenizer or tokenizer_of(start)
    else:
        start = session.models[recipe.adapter or recipe.base]
        base, tokenizer = session.models[recipe.base].module, start.tokenizer
        goes_on = recipe.adapter and not recipe.merge_first
        check_room(recipe, base, start.module.peft_config["default"].r if goes_on else recipe.lora)
        if recipe.lora:
            base = session.models.to_train(start, False, recipe.dtype)
    recipe = with_chat_tokens(recipe, base, tokenizer)
    model = trainable(session, recipe, start, base, tokenizer)
    return (yield from prepare(recipe, run.folder, model, tokenizer, variables))


def with_chat_tokens(recipe, base, tokenizer):
    """The recipe with the tokens whose rows a new adapter trains too: those of the chat template that the base never
    saw.
    """
    from jupyter_gpt.nn.chat_tokens import untrained

    if recipe.trainable_tokens is not None:
        return recipe
    ids = untrained(base, tokenizer) if recipe.lora else []
    return replace(recipe, trainable_tokens=tokenizer.convert_ids_to_tokens(ids))


def trainable(session, recipe, start, base, tokenizer):
    """The module to train: an adapter on a weight-sharing copy of the module `base`, a copy of an adapter, or of all
    the weights of `start`."""
    from jupyter_gpt.nn import lora

    if recipe.adapter and recipe.merge_first:
        return lora.merged(session.models.full_precision(start)).requires_grad_(True)
    if recipe.adapter:
        return lora.clone_adapter(session.models.to_train(start, False, recipe.dtype), recipe.seed)
    if not recipe.lora:
        return lora.copied(session.models.full_precision(start))
    return lora.lora(
        base,
        recipe.lora,
        recipe.lora_alpha,
        recipe.lora_targets,
        dora=recipe.dora,
        rslora=recipe.rslora,
        dropout=recipe.lora_dropout,
        tokens=tokenizer.convert_tokens_to_ids(recipe.trainable_tokens),
        seed=recipe.seed,
    )


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    recipe, module = training.recipe, training.model
    start = session.models.about(recipe.adapter or recipe.base)
    lineage = [*start.lineage, f"{run.name} (sft)"]
    options = {"licence": start.licence}
    if adapters.is_adapter(module):
        options["base"] = recipe.base
    else:  # so that whoever loads the folder stops where an answer ends
        module.generation_config.eos_token_id = sorted(training.ends)
    session.models.keep(
        run.name, module, training.tokenizer, run.kind, run.provenance, lineage, training.step, **options
    )
