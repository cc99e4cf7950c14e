"""`%%classify`: GPT-1's way (Radford et al. 2018). A base model and a head of scores are finetuned on labelled texts.

The head reads the last token of a text. All of the model is trained, or an adapter and the head; or, to see what the
base was worth, the same architecture from random weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import adapters
from jupyter_gpt.options import Count, NotNegative, Positive, Recipe, option
from jupyter_gpt.runs.events import Evaluation, Event, Metric, Progress, Sample, Table
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.launch import launch
from jupyter_gpt.stages.loop import LEARNING_RATE, SPEED, Micro, Trainer, losses
from jupyter_gpt.stages.speed import training_flops
from jupyter_gpt.stages.stage import (
    LENGTH,
    Finetuning,
    OpenShare,
    check_base_mark,
    keep_model,
    one_length,
    startable,
)

SHOWN = 4  # held-out texts whose labels are shown during training
METRICS = (
    *losses("text"),
    Metric("accuracy", "held-out accuracy", format=".1%", interval=("low", "high"), summary=True),
    Metric("f1", "macro F1", interval=("f1_low", "f1_high"), summary=True),
    LEARNING_RATE,
    SPEED,
)


class Classify(Finetuning):
    """finetune a base model to classify texts

    Puts a head with one score per label on a base model and trains both on labelled texts (Radford et al. 2018), or the
    head and an adapter with --lora. Some of the texts are held out: the report has accuracy and F1 on them with their
    intervals, and the confusion matrix. gpt.models[NAME].classify(texts), or `%%prompt NAME` with a text a line, gives
    labels and probabilities. With --from-scratch the same architecture is trained from random weights: the difference
    is what pretraining contributes.
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
        "refuse", "a row without text or label: end the run, or skip the row and count it", group="Name and data"
    )
    held_out: OpenShare = option(0.2, "share of the texts held out for evaluation", "SHARE", group="Name and data")
    context: Count | None = option(None, "tokens read of each text, at most (default: 256)", "T", group="Name and data")
    epochs: Positive | None = option(None, "passes over the texts, instead of --steps (default: 3)", "N", group=LENGTH)
    from_scratch: bool = option(False, "start from random weights instead of the base's", group="Optimization")
    batch: Count = option(16, "texts of one optimizer step", "N", group="Optimization")
    lr: Positive | None = option(
        None, "peak learning rate (default: by width; higher for an adapter)", "X", group="Optimization"
    )
    weight_decay: NotNegative = option(0.0, "weight decay", "X", group="Optimization")
    eval_every: Count | None = option(
        None, "steps between evaluations (default: six in a run)", "N", group="Evaluation"
    )
    sample_every: Count | None = option(
        None, "steps between samples (default: three in a run)", "N", group="Evaluation"
    )

    def check_together(self) -> None:
        one_length(self, "steps", "epochs")
        if self.from_scratch and self.lora:
            raise GPTError("--lora adapts pretrained weights, and --from-scratch has none: leave one out")
        if self.lora_targets and not self.lora:
            raise GPTError("--lora-targets belongs to an adapter: add --lora RANK")


class ClassifyRecipe(Recipe, Classify):
    """A run in full. `batch` is in texts per step, `context` in tokens; `warmup` and `decay` are shares of the steps.

    `micro_tokens` is the size of a micro-batch in tokens. 0, None and "auto" stand for what `prepare` decides.
    """

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
    """Make a classifier from `options.base`; it is `gpt.models[name]`, and its `.classify(texts)` classifies.

    Raises GPTError, one line, for data that cannot be learned from: labels that occur once, a text without one.
    """
    from jupyter_gpt.data import labelled

    data, base, variables = options.data, options.base, options.variables
    store.check_name(options.name)
    if base is None:
        raise GPTError("say what to make a classifier of: --base MODEL")
    if data is None or (isinstance(data, str) and not data.strip()):
        raise GPTError(f"say what to learn from: {labelled.WANTED}, a file or a $variable in the body")
    start = startable(session, base, options.name, adapter=False)
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
    """The recipe of these options, as far as it is known before base and data are read."""
    return ClassifyRecipe.from_options(options, cell=cell, base_mark=base_mark)


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events; returns the `Classifying` at step 0."""
    yield Progress(stage=f"loading {recipe.base}", unit="parameters")
    base = session.models[recipe.base]
    check_base_mark(session, run, recipe)
    module = session.models.to_train(base, not (recipe.lora or recipe.from_scratch), recipe.dtype)
    return (yield from prepare(recipe, run.folder, module, base.tokenizer, variables))


def read_texts(recipe, folder: Path, variables: Mapping | None) -> tuple[list, list[str]]:
    """The labelled texts, and why rows were skipped; kept in `folder/data` and, by a resumed run, read from there."""
    from jupyter_gpt.data.labelled import Labelled, read

    path = folder / "data" / "texts.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [Labelled(*pair) for pair in kept["texts"]], kept["skipped"]
    skipped: list[str] = []
    texts = read(recipe.cell, variables, recipe.bad_rows, skipped)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"texts": [list(each) for each in texts], "skipped": skipped}
    path.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    return texts, skipped


def prepare(recipe, folder: Path, module, tokenizer, variables: Mapping | None = None) -> Iterator[Event | None]:
    """Yields progress events, returns the `Classifying` at step 0. `module` is the causal LM to start from."""
    import torch

    from jupyter_gpt.data.labelled import check, split
    from jupyter_gpt.models.scoring import at_once, encoded
    from jupyter_gpt.nn import devices, training_memory
    from jupyter_gpt.nn.logprobs import Reader
    from jupyter_gpt.nn.modules import context_of
    from jupyter_gpt.nn.optimizer import finetuning_optimizers

    yield Progress(stage="reading the texts", unit="texts")
    texts, skipped = read_texts(recipe, folder, variables)
    labels, device = check(texts), module.device.type
    width, context = module.config.get_text_config().hidden_size, min(recipe.context or 256, context_of(module))
    train, test = split(texts, recipe.held_out, recipe.seed)
    steps = recipe.steps or max(1, math.ceil((recipe.epochs or 3.0) * len(train) / min(recipe.batch, len(train))))
    usual = min(1e-3, 1e-4 * (576 / width)) * (5 if recipe.lora else 3 if recipe.from_scratch else 1)
    recipe = recipe.replace(
        context=context,
        steps=steps,
        lr=recipe.lr or usual,
        dtype=devices.resolved(recipe.dtype, module),
        eval_every=recipe.eval_every or max(1, steps // 6),
        sample_every=recipe.sample_every or max(1, steps // 3),
    )
    yield from devices.notes(device, recipe.dtype)
    recipe = yield from training_memory.with_micro_batch(
        recipe,
        recipe.base,
        module,
        at_once(module),
        text=context,
        rank=recipe.lora,
        logits=False,
        adapter=not recipe.from_scratch,
    )
    model: Any = start(recipe, module, labels, tokenizer)
    ids = encoded(tokenizer, [each.text for each in (*train, *test)], context + 1)
    rows = [(row[:context], labels.index(each.label)) for row, each in zip(ids, (*train, *test), strict=True)]
    return Classifying(
        recipe=recipe,
        model=model,
        tokenizer=tokenizer,
        optimizers=finetuning_optimizers(model, recipe),
        texts=rows[: len(train)],
        held_out=[(each.text, *row) for each, row in zip(test, rows[len(train) :], strict=True)],
        labels=labels,
        cut=sum(len(row) > context for row in ids),
        skipped=skipped,
        reader=Reader(model, getattr(torch, recipe.dtype), bool(recipe.checkpointing)),
        flops_per_token=training_flops(model),
        peak_flops=devices.peak_flops(device, recipe.dtype),
    )


def start(recipe, module, labels: list[str], tokenizer):
    """The classifier before its first step: an adapter, a copy of all weights, or random ones."""
    from jupyter_gpt.nn.devices import seeded
    from jupyter_gpt.nn.heads import with_head
    from jupyter_gpt.nn.lora import copied, lora

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model = with_head(module, labels, pad, seed=recipe.seed)
    if recipe.lora:
        return lora(model, recipe.lora, targets=recipe.lora_targets, task="SEQ_CLS", seed=recipe.seed)
    if not recipe.from_scratch:
        return copied(model)
    with seeded(recipe.seed, module.device):
        fresh = type(model)(model.config)
    return fresh.float().to(module.device).eval().requires_grad_(True)


@dataclass(kw_only=True, eq=False)
class Classifying(Trainer):
    """A classifier in training. `texts` are (ids, label number) to train on, `held_out` (text, ids, label number) to
    evaluate on. `cut` texts were truncated to the context; `skipped` says why rows were left out.
    """

    texts: list[tuple[list[int], int]]
    labels: list[str]
    cut: int
    skipped: Sequence[str]
    reader: Any
    metrics = METRICS

    @property
    def about(self) -> str:
        recipe = self.recipe
        how = f"an adapter of rank {recipe.lora} and a head on" if recipe.lora else "a head and all weights of"
        if recipe.from_scratch:
            return f"the architecture of {recipe.base} from random weights, {recipe.batch} texts per step"
        return f"{how} {recipe.base}, {recipe.batch} texts per step"

    @property
    def figures(self) -> dict[str, str]:
        texts = f"{len(self.texts):,} to train on, {len(self.held_out):,} held out, {self.cut:,} truncated"
        skipped = {"rows skipped": f"{len(self.skipped):,}, the first: {self.skipped[0]}"} if self.skipped else {}
        return {"texts": texts, **skipped}

    @property
    def facts(self) -> dict:
        return {
            "labels": self.labels,
            "texts": len(self.texts),
            "held_out": len(self.held_out),
            "cut": self.cut,
            "skipped": len(self.skipped),
            "first_skipped": next(iter(self.skipped), ""),
        }

    def pieces(self, step: int) -> list[list[tuple[list[int], int]]]:
        """The texts of a step in micro-batches: a function of the step alone."""
        from jupyter_gpt.data.labelled import batch
        from jupyter_gpt.data.prompt_completion import batches

        size = min(self.recipe.batch, len(self.texts))
        rows = [self.texts[n] for n in batch(len(self.texts), size, self.recipe.seed, step)]
        lengths = [len(ids) for ids, _ in rows]
        return [[rows[n] for n in places] for places in batches(lengths, self.at_once(max(lengths) * size))]

    def micro_batches(self, step: int) -> int:
        return len(self.pieces(step))

    def micro_batch(self, step: int, number: int) -> Micro:
        """Its share of the loss is its share of the texts."""
        pieces = self.pieces(step)
        rows = pieces[number]
        return Micro(rows, len(rows) / sum(map(len, pieces)), sum(len(ids) for ids, _ in rows))

    def loss(self, inputs: Sequence[tuple[list[int], int]]):
        """Mean cross-entropy of the true labels, in nats."""
        import torch

        from jupyter_gpt.models.scoring import label_scores

        true = torch.tensor([label for _, label in inputs], device=self.device)
        return torch.nn.functional.cross_entropy(label_scores(self.reader, [ids for ids, _ in inputs]), true)

    def evaluate(self) -> Iterator[Event | None]:
        """Loss, accuracy, F1 and the confusion matrix on the held-out texts."""
        import numpy as np

        from jupyter_gpt.evaluation.metrics import metrics
        from jupyter_gpt.models.scoring import probabilities

        began = time.perf_counter()
        predicted = yield from probabilities(self.reader, [ids for _, ids, _ in self.held_out])
        true = np.array([label for *_, label in self.held_out])
        nats = -float(np.log(np.maximum(predicted[np.arange(len(true)), true], 1e-30)).mean())
        values = metrics(true, predicted.argmax(1), len(self.labels))
        table = confusion_table(self.step, self.labels, values.pop("confusion"))
        seconds = time.perf_counter() - began
        yield Evaluation(step=self.step, values={"val_loss": nats, **values}, seconds=seconds)
        yield table

    def samples(self) -> Iterator[Event | None]:
        """The predicted labels of the first held-out texts, with their probabilities."""
        from jupyter_gpt.models.scoring import probabilities

        shown = self.held_out[:SHOWN]
        predicted = yield from probabilities(self.reader, [ids for _, ids, _ in shown])
        for (text, _, _), row in zip(shown, predicted, strict=True):
            label = f"{self.labels[int(row.argmax())]} ({row.max():.2f})"
            yield Sample(step=self.step, prompt=text, text=label)


def confusion_table(step: int, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Table:
    """The confusion matrix."""
    rows = [[label, *row] for label, row in zip(labels, counts, strict=True)]
    title = "confusion matrix: true label (rows) × predicted label (columns)"
    return Table(step=step, title=title, columns=["", *labels], rows=rows, format=",.0f", chart="matrix")


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    base = None if training.recipe.from_scratch else session.models.about(training.recipe.base)
    below = training.recipe.base if training.recipe.lora else None
    keep_model(session, run, training, base, base=below, labels=training.labels)
