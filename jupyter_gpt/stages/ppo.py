"""PPO for language models (Ziegler et al. 2019; Ouyang et al. 2022), as the talk tells it.

The reward stands at the last token of a completion; at every token the policy pays for having left the reference: R -
kl
* log(pi / pi_ref), in the reward's own unit, so that the coefficient means the same at every step. A critic learns what
is still to come from each token on, so that a token's advantage is what it brought beyond that (GAE); the advantages
are
whitened, and a few clipped updates are made on each batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from jupyter_gpt.nn.logprobs import logprobs
from jupyter_gpt.nn.rl_losses import gae, masked_mean, policy_loss, token_rewards, value_loss, whiten
from jupyter_gpt.nn.schedule import multiplier
from jupyter_gpt.stages.policy import values_of
from jupyter_gpt.stages.rl import RL, chosen, clipped, divergence, drawn, finish_step
from jupyter_gpt.stages.rollout import Rollout, known, micro_batches, stream


def advantages(training: RL, found: Rollout) -> Tensor:
    """What each token would be trained with, `(B, L)`, not whitened and without the KL penalty."""
    with torch.no_grad():
        values = torch.zeros_like(found.old)
        for places in micro_batches(training, found.rows):
            some = values_of(training.critic, [found.rows[p] for p in places])
            values[places, : some.shape[1]] = some
    scores = scores_of(training, found) / training.score_moments.std
    rewards = token_rewards(scores, found.old, found.old, found.mask, 0.0)
    return gae(rewards, values, found.mask, training.recipe.gamma, training.recipe.lam)[0]


def scores_of(training: RL, found: Rollout) -> Tensor:
    """The rewards `(B,)`, less `missing_eos_penalty` where a completion was cut."""
    return found.rewards - (training.recipe.missing_eos_penalty or 0.0) * found.truncated


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
    scores = scores_of(training, found)
    moments = training.score_moments.updated(scores) if recipe.use_score_scaling else training.score_moments
    rewards = token_rewards(scores / moments.std, found.old, reference, mask, training.controller.coefficient)
    brought, returns = gae(rewards, values, mask, recipe.gamma, recipe.lam)
    brought = whiten(brought, mask)
    training.remember()
    first = None
    for _ in range(recipe.epochs):
        told = yield from update(training, found, values, brought, returns, number)
        first = first or told  # its entropy is that of the policy that sampled
    apart = divergence(found.old, reference, mask)
    training.controller.update(float(apart))
    training.score_moments = moments
    yield from finish_step(
        training,
        began,
        found.tokens,
        {
            **told,
            "reward": found.rewards.mean(),
            "kl": apart,
            "entropy": first["entropy"],
            "length": found.length,
            "spread": float(scores.max() - scores.min()) if len(scores) > 1 else None,
            "identical": found.identical,
            "truncated": found.truncated.float().mean(),
        },
    )


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
    norm, value_norm = (clipped(reader.module, recipe.max_norm) for reader in (training.policy, training.critic))
    factor = multiplier(number, recipe.steps, recipe.warmup, recipe.decay)
    training.optimizers.step(factor)
    return {**sums, "grad_norm": norm, "value_grad_norm": value_norm, "lr": recipe.lr * factor}
