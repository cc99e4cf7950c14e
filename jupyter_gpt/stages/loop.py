"""The loop that every run of next-token training is: evaluate, sample, accumulate, clip, step, tell.

A generator of events: whoever iterates stops the run by closing it, has `closing` tell how the model stands then,
pauses it by waiting, and may save, sample or look at `training` between any two events. Losses are yielded as device
scalars:
reading them is what would block on the GPU, and is left to whoever wants to look.

What trains (`pretrain.Training`, `sft.Finetuning`) has the recipe, the model and its optimizers, and says what a
micro-batch is, what its loss is, and how it is evaluated and sampled.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from dataclasses import dataclass

import torch

from jupyter_gpt.nn.schedule import multiplier


@dataclass(frozen=True, eq=False)
class Micro:
    """A micro-batch on the device: what the loss takes, its share of the step's loss, and its tokens."""

    inputs: object
    share: float
    tokens: int


def train(training) -> Iterator[dict | None]:
    """Train until `recipe.steps`, from wherever `training` stands.

    Yields events (dicts; loss and grad_norm are device scalars) and None after each micro-batch, evaluation batch and
    sampled token, so that a stop is felt at once. The state is whole whenever a `step` event has just been yielded.
    """
    recipe = training.recipe
    yield training.start_event()
    fences, upcoming = [], None
    while True:
        last = training.step >= recipe.steps
        if training.held_out and (training.step % recipe.eval_every == 0 or last):
            yield from training.evaluate()
        if training.step % recipe.sample_every == 0 or last:
            yield from training.samples()
        if last:
            return
        step, began = training.step + 1, time.perf_counter()
        busy, tokens, losses = 0.0, 0, []
        count = training.micro_batches(step)
        for number in range(count):
            micro = upcoming if upcoming is not None else training.micro_batch(step, number)
            loss = training.loss(micro.inputs) * micro.share
            loss.backward()
            losses.append(loss.detach())
            tokens += micro.tokens
            upcoming = following(training, step, number + 1, count)  # assembled while the device works
            busy += time.perf_counter() - began
            yield None
            began = time.perf_counter()
        norm = torch.nn.utils.clip_grad_norm_(training.optimizers.names, recipe.clip, foreach=True)
        factor = multiplier(step, recipe.steps, recipe.warmup, recipe.decay)
        training.optimizers.step(factor)
        wait_for_device(training, fences)
        busy += time.perf_counter() - began
        training.took(step, busy, tokens)
        rate = tokens / busy
        yield {
            "event": "step",
            "step": step,
            "loss": torch.stack(losses).sum(),
            "grad_norm": norm,
            "lr": recipe.lr * factor,
            "tokens": training.tokens,
            "seconds": training.seconds,
            "tokens_per_second": rate,
            "mfu": rate * training.flops_per_token / training.peak_flops if training.peak_flops else None,
        }


def closing(training, there: Container[str]) -> Iterator[dict | None]:
    """What a run that is stopped ends with: an evaluation and samples of the model as it stands.

    `there` are the kinds of events that its last step has already, an evaluation perhaps.
    """
    if training.held_out and "evaluation" not in there:
        yield from training.evaluate()
    yield from training.samples()


def following(training, step: int, number: int, count: int) -> Micro | None:
    """The micro-batch after this one, or None at the end of the run."""
    if number < count:
        return training.micro_batch(step, number)
    return None if step >= training.recipe.steps else training.micro_batch(step + 1, 0)


def wait_for_device(training, fences: list) -> None:
    """Let the host run at most two steps ahead, so that a stop is near and the clock is honest."""
    if training.model.device.type == "cuda":
        fence = torch.cuda.Event()
        fence.record()
        fences.append(fence)
        if len(fences) > 2:
            fences.pop(0).synchronize()
