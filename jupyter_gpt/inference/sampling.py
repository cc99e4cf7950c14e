"""From logits to tokens: filters, and sampling by the inverse of the distribution function.

Every sample has its own random stream and takes the same count of uniform numbers from it for each token, so it does
not depend on what runs beside it, up to rounding: a batch of another size sums in another order. Filters are those of
transformers, in its order: temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

AHEAD = 64  # tokens whose uniform numbers are generated at once
WAYS, DEPTH = 16, 5  # of the tree in which a token is found: up to a million leaves
LARGEST = 1 - 2.0**-52  # uniform number: its product with a sum of probabilities stays below that sum when rounded
FEW = 256  # most probable tokens that top-p tries before it sorts the whole vocabulary


class Stream:
    """The uniform numbers of one sample, generated on the CPU so that a seed means the same on every device."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(in_32_bits(seed))
        self.ahead: list[list[float]] = []

    def next(self) -> list[float]:
        """The DEPTH numbers of the next token."""
        if not self.ahead:
            self.ahead = torch.rand(AHEAD, DEPTH, dtype=torch.float64, generator=self.generator).tolist()[::-1]
        return self.ahead.pop()


def in_32_bits(seed: int) -> int:
    """`seed` if it has 32 bits, else a hash of it: torch's CPU generator reads no more."""
    if 0 <= seed < 1 << 32:
        return seed
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest())


def column(values: list[float], like: Tensor) -> Tensor:
    """One number per row as `(B, 1)`, with the dtype and device of `like`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def keep_top_k(scores: Tensor, k: list[int]) -> Tensor:
    """Only the k most probable tokens of each row of `(B, V)` (Fan et al. 2018); 0 keeps all."""
    V = scores.shape[-1]
    at = torch.tensor([min(n or V, V) - 1 for n in k], device=scores.device)[:, None]
    most = max((n for n in k if n), default=0)
    best = scores.topk(min(most, V), dim=-1).values
    least = best.gather(-1, at.clamp(max=best.shape[-1] - 1))
    limited = torch.tensor([n > 0 for n in k], device=scores.device)[:, None]
    return scores.masked_fill(limited & (scores < least), float("-inf"))


def keep_top_p(scores: Tensor, p: list[float]) -> Tensor:
    """The smallest set of most probable tokens of each row that reaches probability p (Holtzman et al. 2020)."""
    probabilities = scores.softmax(dim=-1)
    wanted = column(p, scores)
    best = probabilities.topk(min(FEW, scores.shape[-1]), dim=-1).values
    if bool((best.sum(dim=-1, keepdim=True) < wanted).any()):
        best = probabilities.sort(dim=-1, descending=True).values
    before = best.cumsum(dim=-1, dtype=torch.float64) - best  # the sum of the more probable ones
    count = (before < wanted).sum(dim=-1, keepdim=True).clamp(min=1)
    least = best.gather(-1, count - 1)
    limited = wanted < 1
    return scores.masked_fill(limited & (probabilities < least), float("-inf"))


def keep_min_p(scores: Tensor, p: list[float]) -> Tensor:
    """Tokens at least p times as probable as the most probable one (Nguyen et al. 2024)."""
    floor = scores.amax(dim=-1, keepdim=True) + column(p, scores).log()
    return scores.masked_fill(scores < floor, float("-inf"))


def descend(probabilities: Tensor, uniforms: list[list[float]]) -> Tensor:
    """A token of each row of `(B, V)`, found in a tree: one of WAYS parts of the vocabulary, then a part of that, and
    so on.

    It is as exact as one uniform number in the distribution function of the whole vocabulary, but robust: that function
    has as many borders as there are tokens, and the last bits of the logits, which differ between batch sizes, move all
    of them. One token in 300 of a 49,152-token vocabulary changed that way; here it is one in 70,000.
    """
    rows, levels, sums = torch.arange(len(probabilities), device=probabilities.device), [], probabilities
    while not levels or levels[-1].shape[1] > 1:  # from the leaves up: `(B, parts, WAYS)`
        levels.append(F.pad(sums, (0, -sums.shape[1] % WAYS)).unflatten(1, (-1, WAYS)))
        sums = levels[-1].sum(dim=-1, dtype=torch.float64)
    numbers = torch.tensor([[min(u, LARGEST) for u in row] for row in uniforms], dtype=torch.float64)
    numbers, place = numbers.to(probabilities.device), torch.zeros_like(rows)
    for level, parts in enumerate(reversed(levels)):
        heights = parts[rows, place.clamp(max=parts.shape[1] - 1)].cumsum(dim=-1, dtype=torch.float64)
        at = numbers[:, level, None] * heights[:, -1:]
        place = place * WAYS + torch.searchsorted(heights, at, right=True)[:, 0].clamp(max=WAYS - 1)
    return place.clamp(max=probabilities.shape[1] - 1)  # NaN leads beyond the end, and is reported later


def draw(
    logits: Tensor,
    uniforms: list[list[float]],
    temperature: list[float],
    top_k: list[int],
    top_p: list[float],
    min_p: list[float],
) -> list[int]:
    """One token per row from fp32 logits `(B, V)`: greedy if the temperature is 0, else sampled with the row's uniform
    numbers.

    A filter that no row uses costs nothing; one that some rows use leaves the others unchanged.
    """
    if not any(temperature):
        return logits.argmax(dim=-1).tolist()
    scores = logits
    if any(t not in (0, 1) for t in temperature):
        scores = scores / column([t or 1.0 for t in temperature], scores)
    if any(top_k):
        scores = keep_top_k(scores, top_k)
    if any(p < 1 for p in top_p):
        scores = keep_top_p(scores, top_p)
    if any(min_p):
        scores = keep_min_p(scores, min_p)
    drawn = descend(scores.softmax(dim=-1), uniforms)
    if not all(temperature):
        greedy = torch.tensor([t == 0 for t in temperature], device=logits.device)
        drawn = torch.where(greedy, logits.argmax(dim=-1), drawn)
    return drawn.tolist()


def describe(logits: Tensor, ids: list[int], most: list[int]) -> tuple[list[float], list[tuple]]:
    """Log-probabilities (nats) of `ids` under fp32 logits `(B, V)`, and each row's `most` best as (id, nats)."""
    nats = logits.log_softmax(dim=-1)
    chosen = nats.gather(-1, torch.tensor(ids, device=logits.device)[:, None])[:, 0]
    tops: list[tuple] = [()] * len(ids)
    if any(most):
        best = nats.topk(min(max(most), logits.shape[-1]), dim=-1)
        for row, (names, values, n) in enumerate(zip(best.indices.tolist(), best.values.tolist(), most, strict=True)):
            tops[row] = tuple(zip(names[:n], values[:n], strict=True))
    return chosen.tolist(), tops
