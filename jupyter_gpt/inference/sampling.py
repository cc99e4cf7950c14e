"""From logits to tokens: filters, a few uniform numbers per token and sample, and the inverse of the
distribution function.

Every sample has a random stream of its own and takes as many numbers from it for each token, so it is the same
sample whatever runs beside it: as far as the number format goes, for a batch of another size sums in another
order. Filters are those of transformers, in its order: temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

AHEAD = 64  # tokens whose uniform numbers are drawn at once
WAYS, DEPTH = 16, 5  # of the tree in which a token is found; it has leaves for a million
LARGEST = (
    1 - 2.0**-52
)  # of them: its product with a sum of probabilities is below that sum, whichever way it is rounded
FEW = 256  # the most probable tokens that top-p looks at before it sorts the whole vocabulary


class Stream:
    """The uniform numbers of one sample, drawn on the CPU so that a seed means the same on every device."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(in_32_bits(seed))
        self.ahead: list[list[float]] = []

    def next(self) -> list[float]:
        """The DEPTH numbers of the next token."""
        if not self.ahead:
            self.ahead = torch.rand(AHEAD, DEPTH, dtype=torch.float64, generator=self.generator).tolist()[::-1]
        return self.ahead.pop()


def in_32_bits(seed: int) -> int:
    """`seed` where it has 32 bits, or else a hash of it: torch's generator reads no more of it on a CPU."""
    if 0 <= seed < 1 << 32:
        return seed
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest())


def column(values: list[float], like: Tensor) -> Tensor:
    """One number a row as `(B, 1)` of the logits' type and device."""
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
    """The fewest most probable tokens of each row that reach probability p together (Holtzman et al.
    2020)."""
    probabilities = scores.softmax(dim=-1)
    wanted = column(p, scores)
    best = probabilities.topk(min(FEW, scores.shape[-1]), dim=-1).values
    if bool((best.sum(dim=-1, keepdim=True) < wanted).any()):
        best = probabilities.sort(dim=-1, descending=True).values
    before = best.cumsum(dim=-1, dtype=torch.float64) - best  # what the more probable ones reach without this one
    count = (before < wanted).sum(dim=-1, keepdim=True).clamp(min=1)
    least = best.gather(-1, count - 1)
    limited = wanted < 1
    return scores.masked_fill(limited & (probabilities < least), float("-inf"))


def keep_min_p(scores: Tensor, p: list[float]) -> Tensor:
    """Tokens at least p times as probable as the most probable one (Nguyen et al. 2024)."""
    floor = scores.amax(dim=-1, keepdim=True) + column(p, scores).log()
    return scores.masked_fill(scores < floor, float("-inf"))


def descend(probabilities: Tensor, uniforms: list[list[float]]) -> Tensor:
    """A token of each row of `(B, V)`, found as in a tree: one of WAYS parts of the vocabulary, a part of that, and so
    on.

    Exact, as one number in the distribution function of the whole vocabulary would be. But there it has as many borders
    to fall across as there are tokens, most of them improbable, and all of them are moved by the last bits of the
    logits,
    which are others in a batch of another size: one token in 300 of a 49,152-token vocabulary came out as another one,
    one in 70,000 does here.
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
    return place.clamp(max=probabilities.shape[1] - 1)  # beyond the end is where NaN leads, which is told later


def draw(
    logits: Tensor,
    uniforms: list[list[float]],
    temperature: list[float],
    top_k: list[int],
    top_p: list[float],
    min_p: list[float],
) -> list[int]:
    """One token a row from fp32 logits `(B, V)`: greedy where the temperature is 0, else by the inverse of the
    distribution function, with the numbers that each row took from its stream.

    A filter that no row asks for costs nothing; one that some rows ask for leaves the others as they are.
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
    """Log probabilities of the chosen `ids` under fp32 logits `(B, V)`, in nats, and each row's `most` best
    (id, nats)."""
    nats = logits.log_softmax(dim=-1)
    chosen = nats.gather(-1, torch.tensor(ids, device=logits.device)[:, None])[:, 0]
    tops: list[tuple] = [()] * len(ids)
    if any(most):
        best = nats.topk(min(max(most), logits.shape[-1]), dim=-1)
        for row, (names, values, n) in enumerate(zip(best.indices.tolist(), best.values.tolist(), most, strict=True)):
            tops[row] = tuple(zip(names[:n], values[:n], strict=True))
    return chosen.tolist(), tops
