"""PPO for language models (Ziegler et al. 2019; Ouyang et al. 2022).

The reward is given at the last token of a completion; at every token a KL penalty is subtracted, R - kl * log(pi /
pi_ref), in the unit of the reward, so that the coefficient means the same at every step. A critic estimates the return
from each token on, and the advantage of a token is what it adds to that (GAE); the advantages are whitened, and a few
clipped updates are made on each batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from jupyter_gpt.models.scoring import result_of
from jupyter_gpt.nn.logprobs import logprobs
from jupyter_gpt.nn.rl_losses import gae, masked_mean, policy_loss, token_rewards, value_loss, whiten
from jupyter_gpt.runs.events import Metric
from jupyter_gpt.stages import rl
from jupyter_gpt.stages.loop import clip
from jupyter_gpt.stages.policy import values_of
from jupyter_gpt.stages.rl import RL, divergence, rollout_values, scores_of
from jupyter_gpt.stages.rollout import Rollout, micro_batches

METRICS = (*rl.METRICS, rl.CLIP_FRACTION, Metric("value_loss", "value loss"))
CRITIC = True


def advantages(training: RL, rollout: Rollout) -> Tensor:
    """The advantage of each token `(B, L)`, not whitened and without the KL penalty."""
    scores = scores_of(training, rollout) / training.score_moments.std
    rewards = token_rewards(scores, rollout.old, rollout.old, rollout.mask, 0.0)
    values = result_of(valued(training, rollout))
    return gae(rewards, values, rollout.mask, training.recipe.gamma, training.recipe.lam)[0]


def step(training: RL) -> Iterator:
    """One step: see `rl.Algorithm`."""
    recipe = training.recipe
    rollout, reference = yield from training.rollout_and_reference()
    values = training.totalled((yield from valued(training, rollout, training.ranks)))
    mask = rollout.mask
    scores = scores_of(training, rollout)
    moments = training.score_moments.updated(scores) if recipe.use_score_scaling else training.score_moments
    rewards = token_rewards(scores / moments.std, rollout.old, reference, mask, training.controller.coefficient)
    token_advantages, returns = gae(rewards, values, mask, recipe.gamma, recipe.lam)
    token_advantages = whiten(token_advantages, mask)
    training.remember()
    updates = []
    for _ in range(recipe.epochs):
        updates.append((yield from update(training, rollout, values, token_advantages, returns)))
    kl = divergence(rollout.old, reference, mask)
    training.controller.update(float(kl))
    training.score_moments = moments
    return rollout.tokens, {
        **updates[-1],
        **rollout_values(rollout),
        "kl": kl,
        "entropy": updates[0]["entropy"],  # that of the policy that sampled
        "spread": float(scores.max() - scores.min()) if len(scores) > 1 else None,
    }


def valued(training: RL, rollout: Rollout, ranks: Any = None) -> Iterator[None]:
    """The critic's value of every state, `(B, L)`, or of this rank's share of them; yields between micro-batches."""
    values = torch.zeros_like(rollout.old)
    for places in micro_batches(training, rollout.rows, ranks):
        with torch.no_grad():
            some = values_of(training.critic, [rollout.rows[p] for p in places])
            values[places, : some.shape[1]] = some
        yield
    return values


def update(training: RL, rollout: Rollout, values: Tensor, advantages: Tensor, returns: Tensor) -> Iterator:
    """One update of policy and critic on all completions, micro-batch by micro-batch; returns its values."""
    recipe, mask = training.recipe, rollout.mask
    names = ("loss", "value_loss", "clip_fraction", "entropy")
    sums = values.new_zeros(len(names))
    every = training.own_micro_batches(rollout.rows)
    for places in every:
        rows = [rollout.rows[p] for p in places]
        logp, entropy = logprobs(training.policy, rows)
        width = logp.shape[1]
        own = mask[places, :width]
        share = own.sum() / mask.sum()
        loss, clipped = policy_loss(logp, rollout.old[places, :width], advantages[places, :width], own, recipe.clip)
        training.backward(loss * share, places is every[-1])
        now = values_of(training.critic, rows)
        error, _ = value_loss(now, values[places, :width], returns[places, :width], own, recipe.clip)
        training.backward(error * share, False)
        sums += torch.stack([loss.detach(), error.detach(), clipped, masked_mean(entropy, own)]) * share
        yield
    (sums,) = training.summed(sums)
    value_norm = clip(training.critic.module, recipe.max_norm)
    return {**dict(zip(names, sums, strict=True)), **training.update(training.step + 1), "value_grad_norm": value_norm}
