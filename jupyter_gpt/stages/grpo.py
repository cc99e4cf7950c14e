"""GRPO (Shao et al. 2024) and its relatives: completions of one prompt are compared; no critic.

One step samples completions, computes their rewards, and makes `epochs` updates on them (with one, the ratio to the
policy that sampled is 1: plain policy gradient).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from jupyter_gpt.nn.logprobs import logprobs
from jupyter_gpt.nn.rl_losses import grpo_loss, importance_weights, masked_mean, token_weights
from jupyter_gpt.runs.events import Metric
from jupyter_gpt.stages import rl
from jupyter_gpt.stages.rl import RL, divergence, group_advantages_of, rollout_values, scores_of
from jupyter_gpt.stages.rollout import Rollout

METRICS = (*rl.METRICS, rl.CLIP_FRACTION, Metric("loss", "loss"))


def step(training: RL) -> Iterator:
    """One step: see `rl.Algorithm`."""
    recipe = training.recipe
    rollout, reference = yield from training.rollout_and_reference()
    if recipe.epochs > 1:
        training.remember()
    values: dict = {}
    for _ in range(recipe.epochs):
        values = yield from update(training, rollout, reference)
    training.controller.update(float(values["kl"]))
    groups = scores_of(training, rollout).view(-1, rollout.samples)
    spread = float((groups.amax(dim=1) - groups.amin(dim=1)).mean())
    return rollout.tokens, {**values, **rollout_values(rollout), "spread": spread}


def update(training: RL, rollout: Rollout, reference: Tensor) -> Iterator:
    """One update on all completions, micro-batch by micro-batch; returns its values."""
    recipe, mask = training.recipe, rollout.mask
    advantages = group_advantages_of(training, rollout)[:, 0]
    learned = mask & ~rollout.truncated[:, None] if recipe.mask_truncated_completions else mask
    kind, clip = recipe.loss or "dapo", (recipe.clip, recipe.clip_high or recipe.clip)
    weights = token_weights(kind, learned, recipe.max_tokens)
    logp, entropy = torch.zeros_like(rollout.old), torch.zeros_like(rollout.old)
    sums = logp.new_zeros(3)  # loss, clip fraction, gap to what sampled
    every = training.own_micro_batches(rollout.rows)
    for places in every:
        some, nats = logprobs(training.policy, [rollout.rows[p] for p in places])
        width = some.shape[1]
        own = learned[places, :width]
        old = some.detach() if recipe.epochs == 1 else rollout.old[places, :width]
        coefficient = training.controller.coefficient
        own_weights, start, gap = weights[places, :width], reference[places, :width], sums.new_zeros(())
        if rollout.sampler_logp is not None:
            sampler = rollout.sampler_logp[places, :width]
            own_weights = own_weights * importance_weights(old, sampler)
            gap = ((old - sampler).abs() * mask[places, :width]).sum() / mask.sum()
        loss, cut = grpo_loss(some, old, start, advantages[places], own, own_weights, kind, clip, coefficient)
        training.backward(loss, places is every[-1])
        sums += torch.stack([loss.detach(), cut * own.sum() / learned.sum().clamp(min=1), gap])
        logp[places, :width], entropy[places, :width] = some.detach(), nats
        yield
    ((loss, clipped, gap),) = training.summed(sums)
    return {
        **({} if rollout.sampler_logp is None else {"sampler_gap": gap}),
        "loss": loss,
        "clip_fraction": clipped,
        "kl": divergence(training.totalled(logp), reference, mask),
        "entropy": masked_mean(training.totalled(entropy), mask),
        **training.update(training.step + 1),
    }
