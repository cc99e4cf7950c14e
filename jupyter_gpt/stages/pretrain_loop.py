"""Pretraining as a generator of events: `for event in pretrain(training): ...`. There is no trainer and no callback."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jupyter_gpt.nn.devices import peak_flops
from jupyter_gpt.nn.loss import IGNORE, eager_softmax_gradient, softmax_gradient
from jupyter_gpt.nn.optimizer import Optimizers
from jupyter_gpt.nn.output_head import OutputHead, output_head
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.runs.events import Evaluation, Event, Sample
from jupyter_gpt.stages.loop import Micro, Trainer, train

SAMPLE_TOKENS = 64  # the length of a sample at a fixed step
SAMPLE_TEMPERATURE = 0.8


@dataclass
class Training(Trainer):
    """A model on its way from random weights, or from those of a base.

    `rows` serves training rows `(B, T+1)` by index; `held_out` maps each source to its share and its validation rows
    `(R, T+1)` with IGNORE as padding of the targets; `token_bytes` `(V,)` counts the bytes each token stands for;
    `prompts` are (text, ids) to sample from.
    """

    recipe: Any
    model: nn.Module
    tokenizer: Any
    optimizers: Optimizers
    rows: Any
    held_out: dict[str, tuple[float, np.ndarray]]
    token_bytes: np.ndarray
    prompts: list[tuple[str, list[int]]]
    eot: int
    flops_per_token: float
    peak_flops: float | None
    compile: bool
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    functions: tuple = field(default=(), repr=False)

    @property
    def about(self) -> str:
        recipe = self.recipe
        return (
            f"{recipe.arch}, {recipe.layers} layers of {recipe.width}, {recipe.heads} heads, context {recipe.context}, "
            f"vocabulary {recipe.vocab_size:,}, {recipe.batch_tokens:,} tokens per step"
        )

    @property
    def facts(self) -> dict:
        return {"compile": self.compile}

    def set_position(self, position: Mapping) -> None:
        super().set_position({"tokens": position["step"] * self.recipe.batch_tokens, **position})  # of earlier versions

    def micro_batches(self, step: int) -> int:
        return self.recipe.accumulation

    def micro_batch(self, step: int, number: int) -> Micro:
        """A function of its place in the run alone."""
        recipe = self.recipe
        inputs = batch_at(self, step, number)
        return Micro(inputs, 1 / recipe.accumulation, recipe.rows * recipe.context)

    def loss(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        loss, *_ = forward_functions(self)
        return loss(*inputs)

    def evaluate(self) -> Iterator[Event | None]:
        return evaluate(self, *forward_functions(self)[1:])

    def samples(self) -> Iterator[Event | None]:
        """A sample of each fixed prompt, as the model stands."""
        return sample_prompts(self)


def pretrain(training: Training) -> Iterator[Event | None]:
    """Train until `recipe.steps`, from wherever `training` stands; see `loop.train`."""
    return train(training)


def forward_functions(training: Training) -> tuple:
    """The loss as a function of (ids, targets), compiled when asked, and trunk and head as they are for evaluation."""
    if not training.functions:
        dtype = getattr(torch, training.recipe.dtype)
        trunk = fast_trunk = Trunk(training.model, training.recipe.context, dtype, bool(training.recipe.checkpointing))
        head, gradient = output_head(trunk), eager_softmax_gradient
        if training.compile:
            fast_trunk = torch.compile(trunk, dynamic=False)
            gradient = torch.compile(softmax_gradient, dynamic=False)

        def loss(ids: Tensor, targets: Tensor) -> Tensor:
            return head.cross_entropy(fast_trunk(ids), targets, gradient)

        training.functions = (loss, trunk, head)
    return training.functions


def batch_at(training: Training, step: int, micro: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets `(B, T)` of one micro-batch: a function of its place in the run alone."""
    recipe = training.recipe
    first = ((step - 1) * recipe.accumulation + micro) * recipe.rows
    return to_device(training.rows.batch(np.arange(first, first + recipe.rows)), training.device)


def to_device(rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows `(B, T+1)` as inputs and targets on the device, copied behind the device's back where memory is pinned."""
    ids = torch.from_numpy(rows)
    if device.type == "cuda":
        ids = ids.pin_memory().to(device, non_blocking=True)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


@torch.no_grad()
def held_out_losses(trunk: Trunk, head: OutputHead, sizes: Tensor, ids: Tensor, targets: Tensor) -> np.ndarray:
    """Summed nats of the targets, and their number; nats of those that stand for bytes, and their bytes: `(4,)`."""
    hidden, counted = trunk(ids), targets != IGNORE
    spelled = counted & (sizes[targets.clamp(min=0)] > 0)
    nats = [
        float(head.cross_entropy(hidden[which], targets[which])) * int(which.sum())
        for which in (spelled, counted & ~spelled)
    ]
    return np.array([sum(nats), int(counted.sum()), nats[0], float(sizes[targets[spelled]].sum())])


def evaluate(training: Training, trunk: Trunk, head: OutputHead) -> Iterator[Event | None]:
    """Validation loss in nats per token, and bits per byte of text: the end-of-text token has no byte, and counts in
    the loss alone.

    Each source is read at rows spread evenly through its held-out text, and counts by its share of the mixture, so
    the figure is about what is trained on, however much of a source was held out.
    """
    recipe, device = training.recipe, training.device
    if training.peak_flops and device.type == "cpu":
        training.peak_flops = peak_flops("cpu", recipe.dtype, 0.02)
    began = time.perf_counter()
    sizes = torch.from_numpy(training.token_bytes).to(device)
    at_once = max(1, (4096 if device.type == "cpu" else 65536) // recipe.context)
    mixed, by_source = np.zeros(4), {}
    for source, (share, rows) in training.held_out.items():
        wanted = max(1, min(len(rows), round(share * recipe.eval_tokens / recipe.context)))
        places = np.linspace(0, len(rows) - 1, wanted).round().astype(int)
        sums = np.zeros(4)
        for first in range(0, wanted, at_once):
            ids, targets = to_device(rows[places[first : first + at_once]], device)
            sums += held_out_losses(trunk, head, sizes, ids.clamp(min=0), targets)
            yield None
        by_source[source] = sums[0] / sums[1]
        mixed += share * sums / sums[1]
    bits = mixed[2] / math.log(2) / mixed[3] if mixed[3] else None
    yield Evaluation(
        step=training.step,
        values={"val_loss": mixed[0] / mixed[1], "bits_per_byte": bits},
        seconds=time.perf_counter() - began,
        facts={"by_source": by_source},
    )


def sample_prompts(training: Training) -> Iterator[Event | None]:
    """One sample of each fixed prompt, as the model stands."""
    from jupyter_gpt.inference.engine import sample

    for number, (text, ids) in enumerate(training.prompts):
        sampled = []
        seed = training.recipe.seed * 1000 + number
        for token in sample(training.model, ids, SAMPLE_TOKENS, SAMPLE_TEMPERATURE, seed, frozenset({training.eot})):
            sampled.append(token)
            yield None
        shown = training.tokenizer.decode([t for t in sampled if t != training.eot])
        yield Sample(step=training.step, prompt=text, text=shown)
