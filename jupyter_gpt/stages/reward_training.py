"""The reward model: a language model with one number for a head, taught by rankings which of two texts is better.

The number is read at the last token, where the model has seen prompt and completion whole. The loss is that of the
order the ranker gave (`preference_loss.py`); accuracy, with its interval, is that on rankings of held-out prompts.

From a base and rankings to a reward model that can take its first step.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.metrics import wilson
from jupyter_gpt.models.scoring import row_of, scored, scores
from jupyter_gpt.nn import devices as machine
from jupyter_gpt.nn import training_memory as memory
from jupyter_gpt.nn.devices import resolved
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.nn.optimizer import Optimizers, adamw_of
from jupyter_gpt.nn.preference_loss import Order, ranking_loss, right
from jupyter_gpt.runs.events import Evaluation, Event, Metric, Progress, Sample, Table
from jupyter_gpt.stages.loop import LEARNING_RATE, Micro, Trainer, batch_of, losses
from jupyter_gpt.stages.policy import scorer_of

SHOWN = 3  # held-out rankings whose scores are shown as the training goes
METRICS = (
    *losses("choice"),
    Metric("accuracy", "accuracy on pairs", format=".1%", interval=("low", "high"), summary=True),
    LEARNING_RATE,
)


class Ranked(NamedTuple):
    """A ranking as it is learned from: prompt and completions in words, their ids, and their order, best first."""

    prompt: str
    texts: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    order: Order

    @property
    def tokens(self) -> int:
        return sum(map(len, self.rows))


@dataclass
class RewardTraining(Trainer):
    """A reward model on its way. `cut` rankings had to be shortened to `recipe.max_tokens`."""

    recipe: Any
    model: nn.Module
    tokenizer: Any
    optimizers: Optimizers
    rankings: list[Ranked]
    held_out: list[Ranked]
    cut: int
    reader: Reader = field(repr=False)
    flops_per_token: float | None = None
    peak_flops: float | None = None
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    pairs: tuple[int, int] = (0, 0)  # of the step under way: in the ranker's order, and all
    metrics = METRICS

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"reward": self.model}

    @property
    def sample_every(self) -> int:
        return self.recipe.eval_every

    @property
    def about(self) -> str:
        how = f"LoRA of rank {self.recipe.lora}" if self.recipe.lora else "all weights"
        return f"from {self.recipe.base} and the rankings {self.recipe.rankings}, {how}"

    @property
    def figures(self) -> dict[str, str]:
        pairs = sum(len(a) * len(b) for r in self.held_out for n, a in enumerate(r.order) for b in r.order[n + 1 :])
        return {
            "trained on": f"{len(self.rankings):,} rankings, {self.cut:,} of them truncated",
            "held out": f"{pairs:,} pairs of {len(self.held_out):,} rankings",
        }

    @property
    def facts(self) -> dict:
        return {"rankings": len(self.rankings), "held_out": len(self.held_out), "cut": self.cut}

    def parts(self, step: int) -> list[list[Ranked]]:
        """The rankings of a step in micro-batches: a function of the step alone."""
        batch = batch_of(self.rankings, step, self.recipe.batch, self.recipe.seed)
        return parts(batch, self.recipe.micro_tokens)

    def micro_batches(self, step: int) -> int:
        self.pairs = (0, 0)
        return len(self.parts(step))

    def micro_batch(self, step: int, number: int) -> Micro:
        part = self.parts(step)[number]
        return Micro(part, len(part) / self.recipe.batch, sum(ranked.tokens for ranked in part))

    def loss(self, inputs: Sequence[Ranked]) -> Tensor:
        """The mean loss of these rankings."""
        orders = [ranked.order for ranked in inputs]
        found = scores(self.reader, [row for ranked in inputs for row in ranked.rows])
        found = found.split([len(ranked.rows) for ranked in inputs])
        for own, order in zip(found, orders, strict=True):
            hits, pairs = right(own.tolist(), order)
            self.pairs = self.pairs[0] + hits, self.pairs[1] + pairs
        return ranking_loss(found, orders, self.recipe.margin, self.recipe.centring)

    def step_values(self) -> dict:
        return {"accuracy": self.pairs[0] / self.pairs[1]}

    def evaluate(self) -> Iterator[Event | None]:
        return evaluate(self)

    def samples(self) -> Iterator[Event | None]:
        """The scores of some held-out completions, the ranker's best first."""
        for ranked in self.held_out[:SHOWN]:
            found = yield from scored(self.reader, ranked.rows)
            for place in (place for group in ranked.order for place in group):
                yield Sample(step=self.step, prompt=ranked.prompt, text=ranked.texts[place], reward=found[place])


def parts(batch: Sequence[Ranked], tokens: int) -> list[list[Ranked]]:
    """The rankings of a step as micro-batches of at most `tokens`, or of one ranking."""
    found: list[list[Ranked]] = []
    for ranked in batch:
        if found and sum(r.tokens for r in found[-1]) + ranked.tokens <= tokens:
            found[-1].append(ranked)
        else:
            found.append([ranked])
    return found


def evaluate(training: RewardTraining) -> Iterator[Event | None]:
    """Loss and accuracy on the held-out rankings, and how often the model is right where it says it is sure."""
    began = time.perf_counter()
    found = yield from scored(training.reader, [row for ranked in training.held_out for row in ranked.rows])
    nats, hits, pairs, sure = [], 0, 0, []
    for ranked in training.held_out:
        own, found = found[: len(ranked.rows)], found[len(ranked.rows) :]
        nats.append(float(ranking_loss([torch.tensor(own, dtype=torch.float64)], [ranked.order])))
        hit, count = right(own, ranked.order)
        hits, pairs = hits + hit, pairs + count
        sure += confidences(own, ranked.order)
    low, high = wilson(hits / pairs, len(training.held_out))  # the pairs of one ranking are not independent
    yield Evaluation(
        step=training.step,
        values={"val_loss": sum(nats) / len(nats), "accuracy": hits / pairs, "low": low, "high": high},
        seconds=time.perf_counter() - began,
        facts={"pairs": pairs, "rankings": len(training.held_out)},
    )
    yield calibration_table(training.step, calibration(sure))


def calibration_table(step: int, bins: Sequence[Sequence[float]]) -> Table:
    """What `calibration` returns."""
    rows = [[f"{n}", *row] for n, row in enumerate(bins, start=1)]
    title = "calibration: share of pairs ordered correctly, by confidence"
    return Table(step=step, title=title, columns=["bin", "confidence", "correct", "pairs"], rows=rows, chart="curve")


def confidences(found: Sequence[float], order: Order) -> list[tuple[float, bool]]:
    """Of each pair that `order` tells apart: how sure the scores are of their own favourite, 0.5 to 1, and whether it
    is the ranker's.
    """
    pairs = [(b, w) for i, best in enumerate(order) for later in order[i + 1 :] for b in best for w in later]
    return [(1 / (1 + math.exp(-min(abs(found[b] - found[w]), 500.0))), found[b] > found[w]) for b, w in pairs]


def calibration(sure: Sequence[tuple[float, bool]], bins: int = 5) -> list[list[float]]:
    """Pairs by how sure the model was: `[mean confidence, share right, pairs]` of each fifth of the range 0.5 to 1 that
    has any (a reliability diagram, Niculescu-Mizil and Caruana 2005).
    """
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for p, hit in sure:
        if math.isnan(p):  # of a model that diverged: the loss says so
            continue
        groups[min(bins - 1, int((p - 0.5) * 2 * bins))].append((p, hit))
    return [[sum(p for p, _ in g) / len(g), sum(hit for _, hit in g) / len(g), len(g)] for g in groups if g]


TRAINED = (2048, 16384)  # tokens trained on in one pass on a CPU and on a GPU, where the memory holds them


def prepare(recipe, base, rankings: Sequence, weights: Any = None) -> Iterator[Event | None]:
    """Yields progress events, returns the `RewardTraining` at step 0.

    `base` is a model of the session, `rankings` its `Ranking`s; `weights` is what the reward model begins with, where
    that is not the module of `base`: its weights in fp32. Raises GPTError when nothing can be held out.
    """
    yield Progress(stage="reading the rankings", total=len(rankings), unit="rankings")
    tokenizer = copy.deepcopy(base.tokenizer)
    most = min(recipe.max_tokens or 1 << 30, context_of(base.module))
    ranked, cut = [], 0
    for number, ranking in enumerate(rankings):
        if ranking.pairs:
            texts = tuple(each["text"] for each in ranking.completions)
            rows = [
                row_of(base.name, tokenizer, ranking.prompt, text, most, finished)
                for text, finished in zip(texts, ranking.finished, strict=True)
            ]
            cut += any(shortened for _, shortened in rows)
            ranked.append(Ranked(ranking.prompt, texts, tuple(row for row, _ in rows), ranking.order))
        if number % 100 == 99:
            yield Progress(stage="reading the rankings", done=number + 1, total=len(rankings), unit="rankings")
    train, held_out = split(ranked, recipe.held_out, recipe.seed)
    steps = recipe.steps or max(1, math.ceil(recipe.epochs * len(train) / recipe.batch))
    recipe = recipe.replace(
        steps=steps,
        eval_every=recipe.eval_every or max(1, steps // 8),
        max_tokens=most,
        dtype=resolved(recipe.dtype, base.module),
    )
    weights = base.module if weights is None else weights
    device, most_together = str(weights.device), max(each.tokens for each in train)
    yield from machine.notes(weights.device.type, recipe.dtype)
    longest = max(len(row) for each in train for row in each.rows)
    step, adapter = (
        memory.finetuning(weights, recipe.dtype, longest, rank=rank, logits=False, whole=most_together)
        for rank in (recipe.lora, 16)
    )
    recipe = yield from memory.with_micro_batch(
        recipe,
        base.name,
        TRAINED[weights.device.type == "cuda"],
        most_together,
        step,
        device,
        None if recipe.lora else adapter,
    )
    model = scorer_of(weights, recipe.lora, tokenizer.pad_token_id, recipe.seed)
    optimizers = adamw_of({"reward": model}, {"reward": recipe.lr})
    reader = Reader(model, getattr(torch, recipe.dtype), bool(recipe.checkpointing))
    return RewardTraining(recipe, model, tokenizer, optimizers, train, held_out, cut, reader)


def split(ranked: list[Ranked], share: float, seed: int) -> tuple[list[Ranked], list[Ranked]]:
    """Rankings to learn from and rankings held out, those of one prompt on the same side. Raises GPTError as
    `held_out_prompts`.
    """
    held = held_out_prompts([each.prompt for each in ranked], share, seed)
    return [r for r in ranked if r.prompt not in held], [r for r in ranked if r.prompt in held]


def held_out_prompts(prompts: Sequence[str], share: float, seed: int) -> set[str]:
    """The prompts to hold out: that share of the different ones, one at least and never all, drawn from the seed.

    Raises GPTError when all rankings are of one prompt.
    """
    different = list(dict.fromkeys(prompts))
    if len(different) < 2:
        raise GPTError("all rankings are of one prompt, and some must be held out: rank completions of another one too")
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(seed)).tolist()
    return {different[place] for place in order[: min(max(1, round(share * len(different))), len(order) - 1)]}
