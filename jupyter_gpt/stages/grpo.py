"""GRPO (Shao et al. 2024): several completions of each prompt, each judged against the others; no critic.

One step samples, has the completions rewarded, and makes `epochs` updates on them (one: plain policy gradient, for the
ratio to the policy that sampled is then 1).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from jupyter_gpt.nn.logprobs import logprobs
from jupyter_gpt.nn.rl_losses import grpo_loss, masked_mean
from jupyter_gpt.runs.events import Metric
from jupyter_gpt.stages import rl
from jupyter_gpt.stages.rl import RL, divergence, group_advantages_of, rollout_values
from jupyter_gpt.stages.rollout import Rollout, logprobs_and_entropy, micro_batches

METRICS = (*rl.METRICS, rl.CLIP_FRACTION, Metric("loss", "loss"))


def step(training: RL) -> Iterator:
    """One step: see `rl.Algorithm`."""
    recipe = training.recipe
    found = yield from training.rollout()
    reference, _ = yield from logprobs_and_entropy(training.reference, training, found.rows)
    if recipe.epochs > 1:
        found.old, _ = yield from logprobs_and_entropy(training.policy, training, found.rows)
        training.remember()
    values: dict = {}
    for _ in range(recipe.epochs):
        values = yield from update(training, found, reference)
    training.controller.update(float(values["kl"]))
    groups = found.rewards.view(-1, found.samples)
    spread = float((groups.amax(dim=1) - groups.amin(dim=1)).mean())
    return found.tokens, {**values, **rollout_values(found), "spread": spread}


def update(training: RL, found: Rollout, reference: Tensor) -> Iterator:
    """One update on all completions, micro-batch by micro-batch; returns what it did."""
    recipe, mask = training.recipe, found.mask
    advantages = group_advantages_of(training, found)[:, 0]
    learned = mask & ~found.truncated[:, None] if recipe.mask_truncated_completions else mask
    logp, entropy = torch.zeros_like(found.old), torch.zeros_like(found.old)
    losses, clipped = [], []
    for places in micro_batches(training, found.rows):
        some, nats = logprobs(training.policy, [found.rows[p] for p in places])
        width = some.shape[1]
        own = learned[places, :width]
        old = some.detach() if recipe.epochs == 1 else found.old[places, :width]
        coefficient = training.controller.coefficient
        loss, cut = grpo_loss(some, old, reference[places, :width], advantages[places], own, recipe.clip, coefficient)
        share = own.sum() / learned.sum().clamp(min=1)
        (loss * share).backward()
        losses.append(loss.detach() * share)
        clipped.append(cut * share)
        logp[places, :width], entropy[places, :width] = some.detach(), nats
        yield
    return {
        "loss": torch.stack(losses).sum(),
        "clip_fraction": torch.stack(clipped).sum(),
        "kl": divergence(logp, reference, mask),
        "entropy": masked_mean(entropy, mask),
        **training.update(training.step + 1),
    }
