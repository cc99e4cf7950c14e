"""`%%classify`: GPT-1's way (Radford et al. 2018). A base model and a head of scores are finetuned on labelled
texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import adapters
from jupyter_gpt.options import Count, NotNegative, Positive, Recipe, option
from jupyter_gpt.runs.events import Progress
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.launch import launch
from jupyter_gpt.stages.sft import startable
from jupyter_gpt.stages.stage import LENGTH, Finetuning, OpenShare, one_length


class Classify(Finetuning):
    """finetune a base model to classify texts

    Puts a head of scores, one a label, on a base model and trains both on labelled texts (Radford et al. 2018), or the
    head and an adapter with --lora. A part of the texts is held out: accuracy and F1 on it come with their intervals,
    and the confusion matrix as a picture. gpt.models[NAME].predict(texts) asks the classifier. With --from-scratch the
    same architecture learns from random weights: what it lacks is what the base had learned.
    """

    magic: ClassVar[str] = "%%classify"
    body_help: ClassVar[str] = """
A text, a tab and its label in each line; or

  {"text": …, "label": …}   rows as JSON, one a line
  ./reviews.jsonl           files, globs or folders of such rows; .csv, .tsv and .parquet too
  $reviews                  a variable: (text, label) pairs, rows, or a DataFrame
"""
    body_sketch: ClassVar[tuple[str, ...]] = ("text<tab>label", "…")
    examples: ClassVar[tuple[str, ...]] = ("%%classify mood --base smollm2-135m-instruct --lora 16", "./reviews.jsonl")

    data: object = option(
        None,
        "labelled texts: the text of a cell, (text, label) pairs, rows, a DataFrame, a Path",
        positional=True,
        body=True,
        only="python",
        recipe=False,
    )
    base: str | None = option(
        None, "the model to start from", "MODEL", positional=True, needed=True, complete="models", group="Name and data"
    )
    bad_rows: Literal["refuse", "skip"] = option(
        "refuse", "a row that is no labelled text ends the run, or is skipped and counted", group="Name and data"
    )
    held_out: OpenShare = option(0.2, "share of the texts to test on", "SHARE", group="Name and data")
    context: Count | None = option(None, "tokens read of each text, at most (default: 256)", "T", group="Name and data")
    epochs: Positive | None = option(
        None, "see all texts so many times, instead of --steps (default: 3)", "N", group=LENGTH
    )
    lora: Count | None = option(
        None, "train a LoRA adapter of this rank and the head, and freeze the rest", "R", group="Optimization"
    )
    lora_targets: list[str] | None = option(
        None, "names of the layers it adapts (default: all linear layers)", "LAYER", group="Optimization"
    )
    from_scratch: bool = option(False, "begin with random weights instead of the base's", group="Optimization")
    batch: Count = option(16, "texts of one optimizer step", "N", group="Optimization")
    lr: Positive | None = option(
        None, "peak learning rate (default: by width; more for an adapter)", "X", group="Optimization"
    )
    weight_decay: NotNegative = option(0.0, "weight decay", "X", group="Optimization")
    eval_every: Count | None = option(None, "steps between tests (default: six in a run)", "N", group="Evaluation")
    sample_every: Count | None = option(
        None, "steps between samples (default: three in a run)", "N", group="Evaluation"
    )

    def check_together(self) -> None:
        one_length(self, "steps", "epochs")
        if self.from_scratch and self.lora:
            raise GPTError(
                "--lora adapts what was learned before, and --from-scratch has learned nothing: leave one out"
            )
        if self.lora_targets and not self.lora:
            raise GPTError("--lora-targets belongs to an adapter: add --lora RANK")


class ClassifyRecipe(Recipe, Classify):
    """A run in full. `batch` are texts a step, `context` the most tokens read of each; `warmup` and `decay` shares.

    `micro_tokens` go through the model at once, with `checkpointing` their activations are recomputed: 0 and None until
    it is decided.
    """

    NEWER: ClassVar[Mapping[str, object]] = {
        "minutes": None,
        "bad_rows": "refuse",
        "micro_tokens": 0,
        "checkpointing": None,
    }

    cell: str | None = None
    name: str = ""
    base: str
    base_mark: str = ""
    lora: int = 0
    steps: int = 0
    context: int = 0
    lr: float = 0.0
    optimizer: str = "adamw"
    dtype: str = "auto"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    warmup: float = 0.1
    decay: float = 0.9
    clip: float = 1.0
    eval_every: int = 0
    sample_every: int = 0
    minutes: float | None = None
    micro_tokens: int = 0
    checkpointing: bool | None = None


RECIPE = ClassifyRecipe


def classify(session, options: Classify) -> Run:
    """Make a classifier of `options.base`; it is `gpt.models[name]`, and `.predict(texts)` asks it.

    Raises GPTError, one line, for what cannot be learned from: labels that occur once, a text without one.
    """
    from jupyter_gpt.data import labelled

    data, base, variables = options.data, options.base, options.variables
    store.check_name(options.name)
    if base is None:
        raise GPTError("say what to make a classifier of: --base MODEL")
    if data is None or (isinstance(data, str) and not data.strip()):
        raise GPTError(f"say what to learn from: {labelled.WANTED}, a file or a $variable in the body")
    if base == options.name:
        raise GPTError(f"{base} would replace the model it is made from: choose another name")
    start = startable(session, base)
    if start.base:
        raise GPTError(f"{base} is an adapter of {start.base}: %gpt merge {base} NAME first, then --base NAME")
    if isinstance(data, Path):
        data = str(data)
    elif not isinstance(data, str):
        data, variables = "$data", {**(variables or {}), "data": data}
    labelled.check(labelled.read(data, variables, options.bad_rows))
    recipe = recipe_of(options, data, adapters.mark(start.folder))
    requested = {**options.given, "cell": data}
    requested.pop("data", None)
    return launch(session, options, "classify", recipe, requested, variables)


def recipe_of(options: Classify, cell: str | None = None, base_mark: str = "") -> ClassifyRecipe:
    """The recipe of these options, as far as it is known."""
    return ClassifyRecipe.from_options(options, cell=cell, base_mark=base_mark)


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events, and at the end the training at step 0."""
    from jupyter_gpt.data.labelled import read
    from jupyter_gpt.stages.classify_training import prepare

    yield Progress(stage=f"loading {recipe.base}", unit="parameters")
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
