"""PPO for language models (Ziegler et al. 2019; Ouyang et al. 2022), as the talk tells it.

The reward stands at the last token of a completion; at every token the policy pays for having left the reference. A
critic learns what is still to come from each token on, so that a token's advantage is what it brought beyond that
(GAE), and a few clipped updates are made on each batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from jupyter_gpt.training.logprobs import logprobs
from jupyter_gpt.training.policy import values_of
from jupyter_gpt.training.rl import RL, chosen, divergence, drawn, finish_step, known, micro_batches, stream
from jupyter_gpt.training.rl_losses import gae, kl, masked_mean, policy_loss, value_loss, whiten
from jupyter_gpt.training.rollout import Rollout
from jupyter_gpt.training.schedule import multiplier


def advantages(training: RL, found: Rollout) -> Tensor:
    """What each token would be trained with, `(B, L)`, not whitened and without the price of the KL."""
    with torch.no_grad():
        values = torch.zeros_like(found.old)
        for places in micro_batches(training, found.rows):
            some = values_of(training.critic, [found.rows[p] for p in places])
            values[places, : some.shape[1]] = some
    return gae(at_the_end(found), values, found.mask, training.recipe.gamma, training.recipe.lam)[0]


def at_the_end(found: Rollout) -> Tensor:
    """The rewards `(B, L)`, each at the last token of its completion, over the batch with mean 0 and variance 1: whatever
    the range of a reward, the coefficient of the KL weighs the same against it (Ziegler et al. 2019 do so once, at the
    beginning; a reward that is seldom given then has no spread yet).
    """
    last = found.mask.sum(dim=1, keepdim=True) - 1
    rewards = (found.rewards - found.rewards.mean()) / (found.rewards.std() + 1e-4)
    return torch.zeros_like(found.old).scatter_(1, last, rewards[:, None])


def step(training: RL) -> Iterator[dict | None]:
    """One step; yields None between pieces, `Call`s, and at last its event."""
    recipe, began = training.recipe, time.perf_counter()
    number = training.step + 1
    asked = chosen(training.prompts, number, recipe.prompts_per_step, recipe.seed)
    found = yield from drawn(training, asked, recipe.samples, stream(training, number))
    reference, _ = yield from known(training.reference, training, found.rows)
    if recipe.epochs > 1:
        found.old, _ = yield from known(training.policy, training, found.rows)
    values = yield from valued(training, found)
    mask = found.mask
    price = training.controller.coefficient * kl(found.old, reference, "k1") * mask
    brought, returns = gae(at_the_end(found) - price, values, mask, recipe.gamma, recipe.lam)
    brought = whiten(brought, mask)
    training.remember()
    first = None
    for _ in range(recipe.epochs):
        told = yield from update(training, found, values, brought, returns, number)
        first = first or told  # its entropy is that of the policy that sampled
    apart = divergence(found.old, reference, mask)
    training.controller.update(float(apart))
    yield from finish_step(training, began, found.tokens, {
        **told, "reward": found.rewards.mean(), "kl": apart, "entropy": first["entropy"], "length": found.length,
        "spread": float(found.rewards.std()), "identical": found.identical,
    })  # fmt: skip


def valued(training: RL, found: Rollout) -> Iterator[None]:
    """What the critic says of every state, `(B, L)`; yields between micro-batches."""
    values = torch.zeros_like(found.old)
    for places in micro_batches(training, found.rows):
        with torch.no_grad():
            some = values_of(training.critic, [found.rows[p] for p in places])
            values[places, : some.shape[1]] = some
        yield
    return values


def update(
    training: RL, found: Rollout, values: Tensor, brought: Tensor, returns: Tensor, number: int
) -> Iterator[None]:
    """One update of policy and critic on all completions, micro-batch by micro-batch; returns what it did."""
    recipe, mask = training.recipe, found.mask
    sums = {"loss": 0.0, "value_loss": 0.0, "clip_fraction": 0.0, "entropy": 0.0}
    for places in micro_batches(training, found.rows):
        rows = [found.rows[p] for p in places]
        logp, nats = logprobs(training.policy, rows)
        width = logp.shape[1]
        own = mask[places, :width]
        share = own.sum() / mask.sum()
        loss, cut = policy_loss(logp, found.old[places, :width], brought[places, :width], own, recipe.clip)
        (loss * share).backward()
        now = values_of(training.critic, rows)
        error, _ = value_loss(now, values[places, :width], returns[places, :width], own, recipe.clip)
        (error * share).backward()
        told = (("loss", loss), ("value_loss", error), ("clip_fraction", cut), ("entropy", masked_mean(nats, own)))
        for key, value in told:
            sums[key] = sums[key] + value.detach() * share
        yield
    norm = torch.nn.utils.clip_grad_norm_(training.optimizers.names, recipe.max_norm, foreach=True)
    factor = multiplier(number, recipe.steps, recipe.warmup, recipe.decay)
    training.optimizers.step(factor)
    return {**sums, "grad_norm": norm, "lr": recipe.lr * factor}
