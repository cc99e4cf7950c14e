"""What a ranking says about scores: Plackett-Luce, which for two is Bradley-Terry; DPO is the same over other scores.

The likelihood of an order is that of choosing the best of all, then the best of the rest, and so on, each with a chance
in proportion to exp(score) (Plackett 1975). Those whom the ranker did not tell apart may stand in any order among
themselves: their chances are summed over all of these, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Order = Sequence[Sequence[int]]  # groups of places, the best first, as `Ranking.order` has them


def plackett_luce(scores: Tensor, order: Order, margin: float = 0.0) -> Tensor:
    """Minus the log-likelihood of `order` under `scores` `(K,)`, a scalar; 0 for an order of one group, a tie of all.

    `margin` is taken off the score of whoever is chosen, so that it has to win by that much (for two: Llama 2, Touvron
    et al. 2023, equation 2).
    """
    total = scores.new_zeros(())
    for number, group in enumerate(order[:-1]):
        rest = [place for later in order[number + 1 :] for place in later]
        total = total - before(scores[list(group)] - margin, torch.logsumexp(scores[rest], dim=0))
    return total


def before(chosen: Tensor, rest: Tensor) -> Tensor:
    """Log of the chance that all `chosen` scores `(n,)` come before others whose log-sum-exp is `rest`, in any order.

    f(S) = sum over a in S of e^a / (e^S + e^rest) * f(S without a), over all subsets S: 2^n terms instead of n! orders.
    """
    n = len(chosen)
    if n == 1:
        return F.logsigmoid(chosen[0] - rest)
    done = {0: chosen.new_zeros(())}
    for subset in range(1, 1 << n):
        members = [i for i in range(n) if subset >> i & 1]
        all_of_it = torch.logsumexp(torch.cat([chosen[members], rest[None]]), dim=0)
        terms = torch.stack([chosen[i] + done[subset & ~(1 << i)] for i in members])
        done[subset] = torch.logsumexp(terms, dim=0) - all_of_it
    return done[(1 << n) - 1]


def ranking_loss(
    scores: Sequence[Tensor], orders: Sequence[Order], margin: float = 0.0, centring: float = 0.0
) -> Tensor:
    """Mean over rankings of `plackett_luce`, each with scores `(K,)` of its own.

    `centring` pulls each ranking's mean score towards zero, for only differences are learned: its coefficient times
    (2 * mean)^2, which for two is (r1 + r2)^2 (Eisenstein et al. 2023, section 3.1).
    """
    losses = [plackett_luce(s, order, margin) + centring * (2 * s.mean()) ** 2 for s, order in zip(scores, orders, strict=True)]
    return torch.stack(losses).mean()


def dpo_loss(logps: Sequence[Tensor], reference: Sequence[Tensor], orders: Sequence[Order], beta: float) -> Tensor:
    """Direct preference optimisation: the ranking loss of the rewards that the policy implies, beta * log(pi / pi_ref).

    logps, reference: per ranking the summed log-probabilities `(K,)` of its completions. For two, equation 7 of Rafailov
    et al. 2023; for more, their equation 20.
    """
    return ranking_loss([beta * (p - r) for p, r in zip(logps, reference, strict=True)], orders)


def right(scores: Sequence[float], order: Order) -> tuple[int, int]:
    """Of all pairs that `order` tells apart: how many `scores` order alike (equal scores do not), and how many there are."""
    pairs = [(b, w) for i, best in enumerate(order) for later in order[i + 1 :] for b in best for w in later]
    return sum(scores[b] > scores[w] for b, w in pairs), len(pairs)
