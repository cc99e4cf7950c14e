"""The losses of reinforcement learning on tokens, as plain functions of `(B, T)` tensors that know of no model.

Every tensor has a row per completion and a column per token; `mask` is True where there is one. Log-probabilities are
in nats.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

KL_KINDS = ("k1", "k2", "k3")


class Clipped(NamedTuple):
    """A loss, and the share of tokens whose gradient the clip has cut off."""

    loss: Tensor
    clip_fraction: Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens there are; 0 where there is none."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the tokens there are (the variance unbiased); other places are 0."""
    count = mask.sum()
    mean = (x * mask).sum() / count.clamp(min=1)
    variance = ((x - mean).square() * mask).sum() / (count - 1).clamp(min=1)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


def token_rewards(scores: Tensor, logp: Tensor, reference: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """PPO's rewards `(B, T)`: minus `coefficient` times the KL to the reference at every token (k1), and the score
    `(B,)` of the completion at its last (Ziegler et al. 2019, equation 2; Ouyang et al. 2022, equation 2).
    """
    last = mask.sum(dim=1, keepdim=True) - 1
    return (-coefficient * kl(logp, reference, "k1") * mask).scatter_add(1, last, scores[:, None])


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns, `(B, T)` each (Schulman et al. 2016, equation 16).

    rewards: what came right after each token. values: of the state in which each token was chosen; after the last token
    the value is 0. delta_t = r_t + gamma V_{t+1} - V_t, A_t = sum over l of (gamma lam)^l delta_{t+l}; returns = A + V.
    """
    live = mask.to(values.dtype)
    advantages = torch.zeros_like(values)
    ahead = values.new_zeros(len(values))
    following = values.new_zeros(len(values))
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * following - values[:, t]
        ahead = (delta + gamma * lam * ahead) * live[:, t]
        advantages[:, t] = ahead
        following = values[:, t] * live[:, t]
    return advantages, (advantages + values) * live


def policy_loss(logp: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float = 0.2) -> Clipped:
    """PPO's clipped objective, negated, the mean over all tokens (Schulman et al. 2017, equation 7).

    `logp` of the policy now, `old` of the one that sampled; `advantages` `(B, T)`, or `(B, 1)` for whole completions.
    """
    ratio = torch.exp(logp - old)
    free = ratio * advantages
    bounded = ratio.clamp(1 - clip, 1 + clip) * advantages
    cut = (bounded < free).to(logp.dtype)
    return Clipped(masked_mean(-torch.minimum(free, bounded), mask), masked_mean(cut, mask).detach())


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float = 0.2) -> Clipped:
    """Half the squared error of the values, which may move by `clip` from the old ones at most (Schulman's PPO code;
    Huang et al. 2022, detail 9).
    """
    near = old + (values - old).clamp(-clip, clip)
    free, bounded = (values - returns).square(), (near - returns).square()
    cut = (bounded > free).to(values.dtype)
    return Clipped(0.5 * masked_mean(torch.maximum(free, bounded), mask), masked_mean(cut, mask).detach())


def kl(logp: Tensor, reference: Tensor, kind: str = "k3") -> Tensor:
    """Estimates `(B, T)` of the KL divergence of the policy from the reference, from tokens the policy sampled.

    With r = pi_ref / pi: k1 = -log r is unbiased, k2 = (log r)^2 / 2 has low variance, k3 = r - 1 - log r has both and
    is never negative (Schulman 2020, "Approximating KL divergence").
    """
    log_ratio = reference - logp
    if kind == "k1":
        return -log_ratio
    if kind == "k2":
        return 0.5 * log_ratio.square()
    return torch.expm1(log_ratio) - log_ratio


def group_advantages(rewards: Tensor, scale: bool = True) -> Tensor:
    """GRPO: each completion against the others of its prompt, rewards `(P, N)`: (r - mean) / (std + 1e-4) (Shao et al.
    2024, section 4.1.2; the standard deviation unbiased). Zeros for a group whose rewards are all the same. Without
    `scale` r - mean, so that easy and hard prompts count alike (Liu et al. 2025, section 3.1).
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-4) if scale else centred


def leave_one_out(rewards: Tensor) -> Tensor:
    """RLOO: rewards `(P, N)` minus the mean of the others of their prompt (Ahmadian et al. 2024, section 2.3)."""
    samples = rewards.shape[1]
    return group_advantages(rewards, scale=False) * samples / (samples - 1)


def token_weights(kind: str, mask: Tensor, max_tokens: int) -> Tensor:
    """What the loss of each token counts in the loss of the step, `(B, T)`, by the name of the loss.

    dapo: the mean over all tokens, so that a long completion counts by its length (Yu et al. 2025, section 3.3).
    dr_grpo: the sum over B * max_tokens, which no length biases (Liu et al. 2025, section 3.1). The others: the mean
    over completions of the mean over their tokens (Shao et al. 2024, equation 3).
    """
    live = mask.float()
    if kind == "dapo":
        return live / live.sum().clamp(min=1)
    if kind == "dr_grpo":
        return live / (len(live) * max_tokens)
    return live / live.sum(dim=1, keepdim=True).clamp(min=1) / len(live)


def log_ratio(kind: str, logp: Tensor, old: Tensor, mask: Tensor) -> Tensor:
    """Log of the probability ratio to the policy that sampled: of each token `(B, T)`; of whole completions `(B, 1)`,
    for gspo its mean over tokens (Zheng et al. 2025, equation 7), for rloo its sum (Ahmadian et al. 2024).
    """
    ratio = logp - old
    if kind not in ("gspo", "rloo"):
        return ratio
    total = (ratio * mask).sum(dim=1, keepdim=True)
    return total if kind == "rloo" else total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def importance_weights(logp: Tensor, sampler_logp: Tensor, limit: float = 2.0) -> Tensor:
    """How much likelier each token `(B, L)` is under the policy than under the sampler that drew it, at most `limit`.

    A loss that is weighted so is that of the policy's own samples, but where the limit cuts: truncated importance
    sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").
    """
    return torch.exp(logp - sampler_logp).clamp(max=limit)


def grpo_loss(
    logp: Tensor,
    old: Tensor,
    reference: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    weights: Tensor,
    kind: str = "dapo",
    clip: tuple[float, float] = (0.2, 0.2),
    coefficient: float = 0.0,
) -> Clipped:
    """PPO's clipped objective over group advantages `(B,)`, plus `coefficient` times the KL to the reference (Shao et
    al. 2024, equation 3), summed over tokens by `weights`, which `token_weights` gives.

    `clip` is how far below and above 1 the ratio may be; DAPO allows more above, so that improbable tokens can gain (Yu
    et al. 2025, section 3.1). The KL is k3 times the ratio to the policy that sampled: without that factor its gradient
    is not the KL's, even where the ratio is 1 (DeepSeek-V3.2 2025, section 3.1).
    """
    ratio, (low, high) = torch.exp(log_ratio(kind, logp, old, mask)), clip
    free, bounded = ratio * advantages[:, None], ratio.clamp(1 - low, 1 + high) * advantages[:, None]
    loss = (-torch.minimum(free, bounded) * weights).sum()
    if reference is not None and coefficient:
        loss = loss + coefficient * (torch.exp(logp - old) * kl(logp, reference) * weights).sum()
    cut = (bounded < free).to(logp.dtype).expand(mask.shape)
    return Clipped(loss, masked_mean(cut, mask).detach())


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of all values so far, in float64 (Chan et al. 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def updated(self, x: Tensor) -> Moments:
        """These and the values of `x`."""
        x = x.cpu().double()
        count, delta = self.count + x.numel(), float(x.mean()) - self.mean
        squares = float((x - x.mean()).square().sum()) + delta**2 * self.count * x.numel() / count
        return Moments(count, self.mean + delta * x.numel() / count, self.squares + squares)

    @property
    def std(self) -> float:
        """The standard deviation (unbiased); 1 while no two values differ."""
        return (self.squares / (self.count - 1)) ** 0.5 if self.squares > 0 else 1.0


class KLController:
    """The coefficient of the KL penalty: fixed, or adapted to hold the KL at `target` nats a completion (Ziegler et al.
    2019, section 2.2): each step moves it by a tenth of the relative error, which counts as a fifth at most.
    """

    def __init__(self, coefficient: float, target: float | None = None):
        self.coefficient, self.target = coefficient, target

    def update(self, kl: float) -> None:
        if self.target:
            self.coefficient *= 1 + 0.1 * min(0.2, max(-0.2, kl / self.target - 1))
