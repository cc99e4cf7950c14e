"""What a ranking says about scores: Plackett-Luce, which for two is Bradley-Terry; DPO is the same over other scores.

The likelihood of an order is that of choosing the best of all, then the best of the rest, and so on, each with a chance
in proportion to exp(score) (Plackett 1975). Completions that the ranker tied may stand in any order among themselves:
their chances are summed over all of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Order = Sequence[Sequence[int]]  # groups of places, the best first, as `Ranking.order` has them
SIMPO_MARGIN = 0.5
LEFT, RIGHT = 40.0, 3.2  # how far the integral of `log_before` reaches; what is left out is below 1e-17 of it


def plackett_luce(scores: Tensor, order: Order, margin: float = 0.0) -> Tensor:
    """Minus the log-likelihood of `order` under `scores` `(K,)`, a scalar; 0 for an order of one group, a tie of all.

    `margin` is subtracted from the score of the one placed first, which must win by that much (for two: Llama 2,
    Touvron et al. 2023, equation 2).
    """
    total = scores.new_zeros(())
    for number, group in enumerate(order[:-1]):
        rest = [place for later in order[number + 1 :] for place in later]
        total = total - log_before(scores[list(group)] - margin, torch.logsumexp(scores[rest], dim=0))
    return total


def log_before(scores: Tensor, rest: Tensor) -> Tensor:
    """Log of the chance that all of `scores` `(n,)` come before others whose log-sum-exp is `rest`, in any order.

    Plackett-Luce is a race: the one with score s arrives after a time that is exponential with rate e^s, and the order
    of arrival is the ranking. All n arrive before the first of the rest, which has rate e^rest, with the chance

        integral over t of e^rest exp(-t e^rest) * product over i of (1 - exp(-t e^s_i)),

    one dimension instead of a sum over n! orders. With y = log t + rest the integrand is smooth and has one peak,
    between 0 and log(n + 1), so that the trapezoidal rule converges exponentially; its step shrinks as the peak does,
    with the root of n. In float64, where it is exact to about 1e-14.
    """
    n = len(scores)
    if n == 1:
        return F.logsigmoid(scores[0] - rest)
    right = math.log(n + 1) + RIGHT
    count = math.ceil((LEFT + right) * 4 * math.sqrt(n + 1))
    where = "cpu" if scores.device.type == "mps" else scores.device  # Apple's GPUs have no float64
    y = torch.linspace(-LEFT, right, count, dtype=torch.float64, device=where)
    ahead = scores.to(where, torch.float64) - rest.to(where, torch.float64)
    density = y - y.exp() + log_arrived(ahead[:, None] + y).sum(dim=0)
    return (torch.logsumexp(density, dim=0) + math.log((LEFT + right) / (count - 1))).to(scores)


def log_arrived(z: Tensor) -> Tensor:
    """log(1 - exp(-e^z)), and a gradient that is right, for any z."""
    small, middle = z.clamp(max=-14.0), z.clamp(-14.0, 6.0)  # from z = 6 on it is 0 to 1e-175
    series = small - small.exp() / 2 + (2 * small).exp() / 24
    return torch.where(z < -14.0, series, torch.log(-torch.expm1(-middle.exp())))


def choices(order: Order) -> int:
    """How many choices an order takes in Plackett-Luce: each completion that is placed before some that are left."""
    return sum(len(group) for group in order[:-1])


def ranking_loss(
    scores: Sequence[Tensor], orders: Sequence[Order], margin: float = 0.0, centring: float = 0.0
) -> Tensor:
    """Mean over rankings of the mean over their choices of `plackett_luce`, each with scores `(K,)` of its own.

    For two it is Bradley-Terry, minus log sigmoid(r_chosen - r_rejected). InstructGPT divides the sum over the pairs of
    K completions by their number, so that a long ranking does not outweigh a pair (Ouyang et al. 2022, equation 1);
    here the sum is one over the K - 1 choices of Plackett-Luce (`choices`), and is divided by those. While all scores
    are equal, the gradient of the best score is -1/K, just as it is there.

    `centring` pulls each ranking's mean score towards zero, for only differences are learned: its coefficient times
    (2 * mean)^2, which for two is (r1 + r2)^2 (Eisenstein et al. 2023, section 3.1).
    """
    losses = [
        plackett_luce(s, order, margin) / max(1, choices(order)) + centring * (2 * s.mean()) ** 2
        for s, order in zip(scores, orders, strict=True)
    ]
    return torch.stack(losses).mean()


def dpo_loss(logps: Sequence[Tensor], reference: Sequence[Tensor], orders: Sequence[Order], beta: float) -> Tensor:
    """Direct preference optimisation: the ranking loss of the rewards that the policy implies, beta * log(pi / pi_ref).

    logps, reference: per ranking the summed log-probabilities `(K,)` of its completions. For two, equation 7 of
    Rafailov et al. 2023; for more, their equation 20, divided by its choices as in `ranking_loss`.
    """
    return ranking_loss([beta * (p - r) for p, r in zip(logps, reference, strict=True)], orders)


def preference_loss(
    kind: str, logps: Tensor, reference: Tensor | None, lengths: Tensor, order: Order, beta: float
) -> Tensor:
    """The loss of one ranking by its name, a scalar; of more than two completions the mean over their pairs, but for
    sigmoid, which is `dpo_loss`.

    logps, reference: `(K,)` summed log-probabilities under the policy and the reference, which simpo and orpo do
    without; lengths: `(K,)` tokens. All of them are taken per token. ipo: (difference of log-ratios - 1 / (2 beta))^2
    (Azar et al. 2023, equation 17). simpo: -log sigmoid(beta * difference of the log-probabilities - 0.5) (Meng et al.
    2024, equation 6; the margin is TRL's). orpo: minus the log-probability of the better one, minus beta * log sigmoid
    of the log odds ratio (Hong et al. 2024, equations 6 and 7).
    """
    if kind == "sigmoid":
        assert reference is not None
        return dpo_loss([logps], [reference], [order], beta)
    better, worse = (torch.tensor(places, device=logps.device) for places in zip(*pairs_of(order), strict=True))
    each = logps / lengths
    if kind == "ipo":
        assert reference is not None
        each = each - reference / lengths
        return (each[better] - each[worse] - 1 / (2 * beta)).square().mean()
    if kind == "simpo":
        return -F.logsigmoid(beta * (each[better] - each[worse]) - SIMPO_MARGIN).mean()
    odds = each - torch.log(-torch.expm1(each.clamp(max=-1e-6)))
    return (-each[better] - beta * F.logsigmoid(odds[better] - odds[worse])).mean()


def kto_kl(log_ratios: Tensor) -> Tensor:
    """KTO's estimate of the KL to the reference, a scalar without a gradient: the mean of log pi / pi_ref `(B,)` of
    completions after prompts they do not answer, at least 0 (Ethayarajh et al. 2024, section 4.1)."""
    return log_ratios.detach().mean().clamp(min=0)


def kto_loss(
    log_ratios: Tensor, labels: Tensor, kl: Tensor, beta: float, desirable: float = 1.0, undesirable: float = 1.0
) -> Tensor:
    """KTO (Ethayarajh et al. 2024, equation 7): the loss `(B,)` of each completion, by its log pi / pi_ref.

    Of one with a true label desirable * (1 - sigmoid(beta * (log ratio - kl))), of another undesirable *
    (1 - sigmoid(beta * (kl - log ratio))); `kl` is what `kto_kl` gives.
    """
    sides = torch.where(labels, 1.0, -1.0)
    weights = torch.where(labels, desirable, undesirable)
    return weights * torch.sigmoid(-beta * sides * (log_ratios - kl))


def implied_rewards(kind: str, logps: Tensor, reference: Tensor | None, lengths: Tensor, beta: float) -> Tensor:
    """The rewards `(K,)` that a policy implies: beta times its log-ratio to the reference; without one, of simpo and
    orpo, beta times its log-probability per token.
    """
    return beta * (logps / lengths if reference is None else logps - reference)


def pairs_of(order: Order) -> list[tuple[int, int]]:
    """The pairs (better, worse) that an order tells apart."""
    return [(b, w) for i, best in enumerate(order) for later in order[i + 1 :] for b in best for w in later]


def right(scores: Sequence[float], order: Order) -> tuple[int, int]:
    """How many pairs of `order` the scores order alike (equal scores do not), and how many there are."""
    pairs = pairs_of(order)
    return sum(scores[b] > scores[w] for b, w in pairs), len(pairs)
