"""PPO for language models (Ziegler et al. 2019; Ouyang et al. 2022), as the talk tells it.

The reward stands at the last token of a completion; at every token the policy pays for having left the reference, R -
kl * log(pi / pi_ref), in the reward's own unit, so that the coefficient means the same at every step. A critic learns
what is still to come from each token on, so that a token's advantage is what it brought beyond that (GAE); the
advantages are whitened, and a few clipped updates are made on each batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from jupyter_gpt.nn.logprobs import logprobs
from jupyter_gpt.nn.rl_losses import gae, masked_mean, policy_loss, token_rewards, value_loss, whiten
from jupyter_gpt.runs.events import Metric
from jupyter_gpt.stages import rl
from jupyter_gpt.stages.loop import clip
from jupyter_gpt.stages.policy import values_of
from jupyter_gpt.stages.rl import RL, divergence, rollout_values
from jupyter_gpt.stages.rollout import Rollout, logprobs_and_entropy, micro_batches

METRICS = (*rl.METRICS, rl.CLIP_FRACTION, Metric("value_loss", "value loss"))
CRITIC = True


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


def step(training: RL) -> Iterator:
    """One step: see `rl.Algorithm`."""
    recipe = training.recipe
    found = yield from training.rollout()
    reference, _ = yield from logprobs_and_entropy(training.reference, training, found.rows)
    if recipe.epochs > 1:
        found.old, _ = yield from logprobs_and_entropy(training.policy, training, found.rows)
    values = yield from valued(training, found)
    mask = found.mask
    scores = scores_of(training, found)
    moments = training.score_moments.updated(scores) if recipe.use_score_scaling else training.score_moments
    rewards = token_rewards(scores / moments.std, found.old, reference, mask, training.controller.coefficient)
    token_advantages, returns = gae(rewards, values, mask, recipe.gamma, recipe.lam)
    token_advantages = whiten(token_advantages, mask)
    training.remember()
    updates = []
    for _ in range(recipe.epochs):
        updates.append((yield from update(training, found, values, token_advantages, returns)))
    kl = divergence(found.old, reference, mask)
    training.controller.update(float(kl))
    training.score_moments = moments
    return found.tokens, {
        **updates[-1],
        **rollout_values(found),
        "kl": kl,
        "entropy": updates[0]["entropy"],  # that of the policy that sampled
        "spread": float(scores.max() - scores.min()) if len(scores) > 1 else None,
    }


def valued(training: RL, found: Rollout) -> Iterator[None]:
    """What the critic says of every state, `(B, L)`; yields between micro-batches."""
    values = torch.zeros_like(found.old)
    for places in micro_batches(training, found.rows):
        with torch.no_grad():
            some = values_of(training.critic, [found.rows[p] for p in places])
            values[places, : some.shape[1]] = some
        yield
    return values


def update(training: RL, found: Rollout, values: Tensor, advantages: Tensor, returns: Tensor) -> Iterator:
    """One update of policy and critic on all completions, micro-batch by micro-batch; returns what it did."""
    recipe, mask = training.recipe, found.mask
    sums = {"loss": 0.0, "value_loss": 0.0, "clip_fraction": 0.0, "entropy": 0.0}
    for places in micro_batches(training, found.rows):
        rows = [found.rows[p] for p in places]
        logp, entropy = logprobs(training.policy, rows)
        width = logp.shape[1]
        own = mask[places, :width]
        share = own.sum() / mask.sum()
        loss, clipped = policy_loss(logp, found.old[places, :width], advantages[places, :width], own, recipe.clip)
        (loss * share).backward()
        now = values_of(training.critic, rows)
        error, _ = value_loss(now, values[places, :width], returns[places, :width], own, recipe.clip)
        (error * share).backward()
        parts = {"loss": loss, "value_loss": error, "clip_fraction": clipped, "entropy": masked_mean(entropy, own)}
        sums = {key: sums[key] + part.detach() * share for key, part in parts.items()}
        yield
    value_norm = clip(training.critic.module, recipe.max_norm)
    return {**sums, **training.update(training.step + 1), "value_grad_norm": value_norm}
