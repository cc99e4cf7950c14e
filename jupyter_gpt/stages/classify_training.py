"""Classification, GPT-1's way (Radford et al. 2018): a base model with a head of scores, finetuned on labelled texts.

The head reads the last token of a text. All of the model is trained, or an adapter and the head; or, to see what the
base was worth, the same architecture from random weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_gpt.models.scoring import at_once, encoded, label_scores, probabilities
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.runs.events import Evaluation, Event, Metric, Progress, Sample, Table
from jupyter_gpt.stages.loop import LEARNING_RATE, SPEED, Micro, Trainer, losses

SHOWN = 4  # held-out texts whose labels are shown as the training goes
METRICS = (
    *losses("text"),
    Metric("accuracy", "held-out accuracy", format=".1%", interval=("low", "high"), summary=True),
    Metric("f1", "macro F1", interval=("f1_low", "f1_high"), summary=True),
    LEARNING_RATE,
    SPEED,
)


@dataclass
class Classifying(Trainer):
    """A classifier on its way. `texts` are (ids, label number) to learn from, `held_out` those to test on, in words
    too.
    """

    recipe: Any
    model: Any
    tokenizer: Any
    labels: list[str]
    optimizers: Any
    texts: list[tuple[list[int], int]]
    held_out: list[tuple[str, list[int], int]]
    cut: int
    reader: Reader
    flops_per_token: float
    peak_flops: float | None
    skipped: int = 0  # rows
    first_skipped: str = ""
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0

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
        found = {"texts": f"{len(self.texts):,} to train on, {len(self.held_out):,} held out, {self.cut:,} truncated"}
        if self.skipped:
            found["rows skipped"] = f"{self.skipped:,}, the first: {self.first_skipped}"
        return found

    @property
    def facts(self) -> dict:
        return {
            "labels": self.labels,
            "texts": len(self.texts),
            "held_out": len(self.held_out),
            "cut": self.cut,
            "skipped": self.skipped,
            "first_skipped": self.first_skipped,
        }

    def pieces(self, step: int) -> list[list[tuple[list[int], int]]]:
        """The texts of a step, a function of the step alone, in pieces small enough to go through the model."""
        from jupyter_gpt.data.labelled import batch
        from jupyter_gpt.data.prompt_completion import batches

        size = min(self.recipe.batch, len(self.texts))
        rows = [self.texts[n] for n in batch(len(self.texts), size, self.recipe.seed, step)]
        found = batches([len(ids) for ids, _ in rows], self.recipe.micro_tokens)
        return [[rows[n] for n in places] for places in found]

    def micro_batches(self, step: int) -> int:
        return len(self.pieces(step))

    def micro_batch(self, step: int, number: int) -> Micro:
        """Its share of the loss is its share of the texts."""
        pieces = self.pieces(step)
        rows = pieces[number]
        return Micro(rows, len(rows) / sum(map(len, pieces)), sum(len(ids) for ids, _ in rows))

    def loss(self, inputs: Sequence[tuple[list[int], int]]):
        """Mean nats of the right label."""
        import torch

        true = torch.tensor([label for _, label in inputs], device=self.device)
        return torch.nn.functional.cross_entropy(label_scores(self.reader, [ids for ids, _ in inputs]), true)

    def evaluate(self) -> Iterator[Event | None]:
        """Loss, accuracy, F1 and the confusion matrix on the texts held out."""
        import numpy as np

        from jupyter_gpt.evaluation.metrics import metrics

        began = time.perf_counter()
        found = yield from probabilities(self.reader, [ids for _, ids, _ in self.held_out])
        true = np.array([label for *_, label in self.held_out])
        nats = -float(np.log(np.maximum(found[np.arange(len(true)), true], 1e-30)).mean())
        values = metrics(true, found.argmax(1), len(self.labels))
        table = confusion_table(self.step, self.labels, values.pop("confusion"))
        seconds = time.perf_counter() - began
        yield Evaluation(step=self.step, values={"val_loss": nats, **values}, seconds=seconds)
        yield table

    def samples(self) -> Iterator[Event | None]:
        """What is said of the first texts held out, with its probability."""
        shown = self.held_out[:SHOWN]
        found = yield from probabilities(self.reader, [ids for _, ids, _ in shown])
        for (text, _, _), row in zip(shown, found, strict=True):
            said = f"{self.labels[int(row.argmax())]} ({row.max():.2f})"
            yield Sample(step=self.step, prompt=text, text=said)


def confusion_table(step: int, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Table:
    """The confusion matrix."""
    rows = [[label, *row] for label, row in zip(labels, counts, strict=True)]
    title = "confusion matrix: true label (rows) × predicted label (columns)"
    return Table(step=step, title=title, columns=["", *labels], rows=rows, format=",.0f", chart="matrix")


def prepare(recipe, folder: Path, module, tokenizer, texts: Any, skipped: Sequence[str] = ()) -> Iterator[Event | None]:
    """Yields progress events, returns the `Classifying` at step 0.

    `module` is the causal LM to start from; `texts` are Labelled, and `skipped` why others were left out: kept in
    `folder/data`, and read from there when they are there already (a resumed run).
    """
    import torch

    from jupyter_gpt.data.labelled import Labelled, check, split
    from jupyter_gpt.nn import devices as machine
    from jupyter_gpt.nn import training_memory as memory
    from jupyter_gpt.nn.modules import context_of
    from jupyter_gpt.nn.optimizer import finetuning_optimizers

    yield Progress(stage="reading the texts", unit="texts")
    path = folder / "data" / "texts.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        kept = kept if isinstance(kept, dict) else {"texts": kept, "skipped": []}  # as earlier versions wrote it
        texts, skipped = [Labelled(*pair) for pair in kept["texts"]], kept["skipped"]
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"texts": [list(each) for each in texts], "skipped": list(skipped)}
        path.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    labels = check(texts)
    config, device = module.config.get_text_config(), module.device.type
    context = min(recipe.context or 256, context_of(module))
    learn, test = split(texts, recipe.held_out, recipe.seed)
    recipe = recipe.replace(context=context)
    recipe = resolved(recipe, config.hidden_size, len(learn), machine.choose_dtype(device, config.hidden_size))
    yield from machine.notes(device, recipe.dtype)
    step, adapter = (
        memory.finetuning(module, recipe.dtype, context, rank=rank, logits=False, whole=context)
        for rank in (recipe.lora, 16)
    )
    recipe = yield from memory.with_micro_batch(
        recipe,
        recipe.base,
        at_once(module),
        context,
        step,
        str(module.device),
        None if recipe.lora or recipe.from_scratch else adapter,
    )
    model: Any = start(recipe, module, labels, tokenizer)
    ids = encoded(tokenizer, [each.text for each in (*learn, *test)], context + 1)
    cut = sum(len(row) > context for row in ids)
    numbered = [(row[:context], labels.index(each.label)) for row, each in zip(ids, (*learn, *test), strict=True)]
    held = [(each.text, *row) for each, row in zip(test, numbered[len(learn) :], strict=True)]
    matrices = sum(p.numel() * (6.0 if p.requires_grad else 4.0) for n, p in model.named_parameters() if p.ndim > 1)
    embedding = model.get_input_embeddings().weight
    return Classifying(
        recipe,
        model,
        tokenizer,
        labels,
        finetuning_optimizers(model, recipe),
        numbered[: len(learn)],
        held,
        cut,
        Reader(model, getattr(torch, recipe.dtype), bool(recipe.checkpointing)),
        matrices - embedding.numel() * (6.0 if embedding.requires_grad else 4.0),
        machine.peak_flops(device, recipe.dtype),
        skipped=len(skipped),
        first_skipped=next(iter(skipped), ""),
    )


def resolved(recipe, width: int, texts: int, dtype: str):
    """The recipe with what follows from base and data; three epochs where no length was given."""
    steps = recipe.steps or max(1, math.ceil((recipe.epochs or 3.0) * texts / min(recipe.batch, texts)))
    usual = min(1e-3, 1e-4 * (576 / width)) * (5 if recipe.lora else 3 if recipe.from_scratch else 1)
    return recipe.replace(
        steps=steps,
        lr=recipe.lr or usual,
        dtype=dtype if recipe.dtype == "auto" else recipe.dtype,
        eval_every=recipe.eval_every or max(1, steps // 6),
        sample_every=recipe.sample_every or max(1, steps // 3),
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
