"""The reward model: a language model with one number for a head, taught by rankings which of two texts is better.

The number is read at the last token, where the model has seen prompt and completion whole. The loss is that of the
order the ranker gave (`preference.py`); accuracy is told on rankings of prompts that were held out, with its interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from jupyter_gpt.evaluation.intervals import wilson
from jupyter_gpt.models.scoring import scored, scores
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.optimizer import Optimizers
from jupyter_gpt.nn.preference_loss import Order, ranking_loss, right
from jupyter_gpt.nn.schedule import multiplier
from jupyter_gpt.runs import resumable

SHOWN = 3  # held-out rankings whose scores are shown as the training goes


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
class RewardTraining:
    """A reward model on its way. `cut` rankings had to be shortened to `recipe.max_tokens`."""

    recipe: object
    model: nn.Module
    tokenizer: object
    optimizers: Optimizers
    rankings: list[Ranked]
    held_out: list[Ranked]
    cut: int
    reader: Reader = field(repr=False)
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"reward": self.model}

    def state(self) -> tuple[dict, dict, dict]:
        """What a checkpoint holds: the weights that are trained, optimizer and position."""
        position = {"seconds": self.seconds, "tokens": self.tokens}
        return resumable.moving(self.modules), self.optimizers.state(), position

    def load(self, folder: Path) -> None:
        position = resumable.load(folder, self.modules, self.optimizers)
        self.step, self.seconds, self.tokens = position["step"], position["seconds"], position["tokens"]

    def loop(self) -> Iterator[dict | None]:
        return train(self)

    def samples(self) -> Iterator[dict | None]:
        return shown(self)

    def closing(self, there: Container[str]) -> Iterator[dict | None]:
        """What the run ends with when it is stopped: see `loop.closing`."""
        if "evaluation" not in there:
            yield from evaluate(self)
        yield from shown(self)


def train(training: RewardTraining) -> Iterator[dict | None]:
    """Train until `recipe.steps`; yields events, and None after each micro-batch."""
    recipe, model = training.recipe, training.model
    yield {
        "event": "start",
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "device": next(model.parameters()).device.type,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "steps": recipe.steps,
        "step": training.step,
        "rankings": len(training.rankings),
        "held_out": len(training.held_out),
        "cut": training.cut,
        "tokens_per_step": None,
        "peak_flops": None,
        "flops_per_token": None,
    }
    while True:
        if training.step % recipe.eval_every == 0 or training.step == recipe.steps:
            yield from evaluate(training)
            yield from shown(training)
        if training.step >= recipe.steps:
            return
        step, began, busy = training.step + 1, time.perf_counter(), 0.0
        batch = chosen(training, step)
        losses, hits, pairs = [], 0, 0
        for part in parts(batch, recipe.micro_tokens):
            orders = [ranked.order for ranked in part]
            found = scores(training.reader, [row for ranked in part for row in ranked.rows]).split(
                [len(r.rows) for r in part]
            )
            loss = ranking_loss(found, orders, recipe.margin, recipe.centring) * len(part) / len(batch)
            loss.backward()
            losses.append(loss.detach())
            for own, order in zip(found, orders, strict=True):
                hit, count = right(own.tolist(), order)
                hits, pairs = hits + hit, pairs + count
            busy += time.perf_counter() - began
            yield None
            began = time.perf_counter()
        norm = torch.nn.utils.clip_grad_norm_(training.optimizers.names, recipe.clip, foreach=True)
        factor = multiplier(step, recipe.steps, recipe.warmup, recipe.decay)
        training.optimizers.step(factor)
        busy += time.perf_counter() - began
        tokens = sum(ranked.tokens for ranked in batch)
        training.step, training.seconds, training.tokens = step, training.seconds + busy, training.tokens + tokens
        yield {
            "event": "step",
            "step": step,
            "loss": torch.stack(losses).sum(),
            "accuracy": hits / pairs,
            "grad_norm": norm,
            "lr": recipe.lr * factor,
            "tokens": training.tokens,
            "seconds": training.seconds,
            "tokens_per_second": tokens / busy,
            "mfu": None,
        }


def chosen(training: RewardTraining, step: int) -> list[Ranked]:
    """The rankings of one step: a function of its place in the run alone; each comes once in a pass over all."""
    count, size = len(training.rankings), training.recipe.batch
    found = []
    for n in range((step - 1) * size, step * size):
        turn, place = divmod(n, count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(training.recipe.seed * 100_003 + turn))
        found.append(training.rankings[int(order[place])])
    return found


def parts(batch: Sequence[Ranked], tokens: int) -> list[list[Ranked]]:
    """The rankings of a step as micro-batches of at most `tokens`, or of one ranking."""
    found: list[list[Ranked]] = []
    for ranked in batch:
        if found and sum(r.tokens for r in found[-1]) + ranked.tokens <= tokens:
            found[-1].append(ranked)
        else:
            found.append([ranked])
    return found


def evaluate(training: RewardTraining) -> Iterator[dict | None]:
    """Loss and accuracy on the held-out rankings, and how often the model is right where it says it is sure."""
    began = time.perf_counter()
    found = yield from scored(training.reader, [row for ranked in training.held_out for row in ranked.rows])
    losses, hits, pairs, sure = [], 0, 0, []
    for ranked in training.held_out:
        own, found = found[: len(ranked.rows)], found[len(ranked.rows) :]
        losses.append(float(ranking_loss([torch.tensor(own, dtype=torch.float64)], [ranked.order])))
        hit, count = right(own, ranked.order)
        hits, pairs = hits + hit, pairs + count
        sure += confidences(own, ranked.order)
    low, high = wilson(hits / pairs, len(training.held_out))  # the pairs of one ranking are not independent
    yield {
        "event": "evaluation",
        "step": training.step,
        "val_loss": sum(losses) / len(losses),
        "accuracy": hits / pairs,
        "low": low,
        "high": high,
        "pairs": pairs,
        "rankings": len(training.held_out),
        "calibration": calibration(sure),
        "seconds": time.perf_counter() - began,
    }


def confidences(found: Sequence[float], order: Order) -> list[tuple[float, bool]]:
    """Of each pair that `order` tells apart: how sure the scores are of their own favourite, 0.5 to 1, and whether it
    is
    the ranker's.
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


def shown(training: RewardTraining) -> Iterator[dict | None]:
    """The scores of some held-out completions, the ranker's best first."""
    for ranked in training.held_out[:SHOWN]:
        found = yield from scored(training.reader, ranked.rows)
        for group in ranked.order:
            for place in group:
                yield {
                    "event": "sample",
                    "step": training.step,
                    "prompt": ranked.prompt,
                    "text": ranked.texts[place],
                    "reward": found[place],
                }
