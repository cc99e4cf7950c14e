"""GRPO (Shao et al. 2024): several completions of each prompt, each judged against the others; no critic.

One step samples, has the completions rewarded, and makes `epochs` updates on them (one: plain policy gradient, for the
ratio to the policy that sampled is then 1).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from jupyter_gpt.nn.logprobs import logprobs
from jupyter_gpt.nn.rl_losses import grpo_loss, masked_mean
from jupyter_gpt.nn.schedule import multiplier
from jupyter_gpt.stages.rl import RL, chosen, divergence, drawn, finish_step, group_of
from jupyter_gpt.stages.rollout import Rollout, known, micro_batches, stream


def advantages(training: RL, found: Rollout) -> Tensor:
    """What each token is trained with, `(B, L)`: the same all through a completion."""
    return group_of(found)[:, None].expand(found.old.shape)


def step(training: RL) -> Iterator[dict | None]:
    """One step; yields None between pieces, `Call`s, and at last its event."""
    recipe, began = training.recipe, time.perf_counter()
    number = training.step + 1
    asked = chosen(training.prompts, number, recipe.prompts_per_step, recipe.seed)
    found = yield from drawn(training, asked, recipe.samples, stream(training, number))
    reference, _ = yield from known(training.reference, training, found.rows)
    better = group_of(found)
    if recipe.epochs > 1:
        found.old, _ = yield from known(training.policy, training, found.rows)
        training.remember()
    for _ in range(recipe.epochs):
        told = yield from update(training, found, reference, better, number)
    training.controller.update(float(told["kl"]))
    groups = found.rewards.view(-1, found.samples)
    yield from finish_step(
        training,
        began,
        found.tokens,
        {
            **told,
            "reward": found.rewards.mean(),
            "length": found.length,
            "identical": found.identical,
            "spread": float((groups.amax(dim=1) - groups.amin(dim=1)).mean()),
            "truncated": found.truncated.float().mean(),
        },
    )


def update(training: RL, found: Rollout, reference: Tensor, better: Tensor, number: int) -> Iterator[None]:
    """One update on all completions, micro-batch by micro-batch; returns what it did."""
    recipe, mask = training.recipe, found.mask
    learned = mask & ~found.truncated[:, None] if recipe.mask_truncated_completions else mask
    logp, entropy = torch.zeros_like(found.old), torch.zeros_like(found.old)
    losses, clipped = [], []
    for places in micro_batches(training, found.rows):
        some, nats = logprobs(training.policy, [found.rows[p] for p in places])
        width = some.shape[1]
        own = learned[places, :width]
        old = some.detach() if recipe.epochs == 1 else found.old[places, :width]
        loss, cut = grpo_loss(
            some, old, reference[places, :width], better[places], own, recipe.clip, training.controller.coefficient
        )
        share = own.sum() / learned.sum().clamp(min=1)
        (loss * share).backward()
        losses.append(loss.detach() * share)
        clipped.append(cut * share)
        logp[places, :width], entropy[places, :width] = some.detach(), nats
        yield
    norm = torch.nn.utils.clip_grad_norm_(training.optimizers.names, recipe.max_norm, foreach=True)
    factor = multiplier(number, recipe.steps, recipe.warmup, recipe.decay)
    training.optimizers.step(factor)
    return {
        "loss": torch.stack(losses).sum(),
        "clip_fraction": torch.stack(clipped).sum(),
        "grad_norm": norm,
        "kl": divergence(logp, reference, mask),
        "entropy": masked_mean(entropy, mask),
        "lr": recipe.lr * factor,
    }
