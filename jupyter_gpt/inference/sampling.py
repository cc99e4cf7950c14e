"""What the engine is asked for (`Request`), one sample of it while it is generated (`Sequence`), what comes back
(`Token`), and how logits become tokens: filters, and sampling by the inverse of the distribution function.

Every sample has its own random stream and takes the same count of uniform numbers from it for each token, so it does
not depend on what runs beside it, up to rounding: a batch of another size sums in another order. Filters are those of
transformers, in its order: temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from jupyter_gpt.errors import GPTError

AHEAD = 64  # tokens whose uniform numbers are generated at once
WAYS, DEPTH = 16, 5  # of the tree in which a token is found: up to a million leaves
LARGEST = 1 - 2.0**-52  # uniform number: its product with a sum of probabilities stays below that sum when rounded
FEW = 256  # most probable tokens that top-p tries before it sorts the whole vocabulary


class Constraint(Protocol):
    """Decides which tokens a sample may take. Each sample has its own.

    Optional: `instead(id) -> list[int]`, the tokens to append in place of a sampled one, and `temperature` for the next
    token (None: the request's).
    """

    def mask(self) -> Tensor | None:
        """The tokens allowed next, `(V,)` bool; None allows all."""

    def forced(self) -> list[int]:
        """Tokens that must come next, perhaps none. They are appended in one pass and not sampled."""

    def accept(self, id: int) -> None:
        """Called with every token appended to the sample, sampled or forced."""


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it. Sample k uses the random stream of this prompt and seed + k, so it is the sample
    that seed + k alone would give, as far as logits round alike in batches of different size (`descend`). Different
    prompts of one seed have different random numbers, so their samples are independent.

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 filter nothing. A token of `stop_ids` ends a sample
    once it has `min_tokens`. `top_logprobs` alternatives are reported with each token. `until(ids)` is called with
    all ids of a sample after each token; True ends it with finish "stop" (stop strings work this way). A single sample
    is decoded speculatively (`speculative.py`) if `lookup` (None: in fp32 on a CPU).
    """

    ids: tuple[int, ...]
    samples: int = 1
    max_tokens: int = 256
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()
    top_logprobs: int = 0
    constraint: Callable[[], Constraint] | None = None
    until: Callable[[list[int]], bool] | None = None
    lookup: bool | None = False

    def stream(self, sample: int) -> Stream:
        """The random numbers of a sample."""
        return Stream(hash_of(*self.ids) + self.seed + sample)


class Token(NamedTuple):
    """One token of one sample.

    `logprob` (nats) and `top`, pairs of id and nats, belong to the model's own distribution: temperature 1, no mask.
    `seconds` is the time of the step that made it. `finish` is None before the last token, which has "stop" (it is then
    a stop id and no part of the text) or "length". The first token of a step tells how many were `drafted` for it and
    how many of these were `accepted`; the first of a sample, how many tokens of the prompt were `cached`.
    """

    request: int
    sample: int
    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    seconds: float
    finish: str | None
    drafted: int = 0
    accepted: int = 0
    cached: int = 0


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
    return seed if 0 <= seed < 1 << 32 else hash_of(seed)


def hash_of(*numbers: int) -> int:
    """32 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=4).digest())


@dataclass
class Sequence:
    """One sample while it is generated.

    `pending`: tokens the model has not read yet; `unreported`: those of them whose log-probability is still to come,
    because they were forced; `finish` is set as soon as the last token is known; `cached`: tokens of the prompt that
    were in the prefix cache, until that is reported.
    """

    request_number: int
    sample: int
    request: Request
    limit: int
    stream: Stream
    constraint: Constraint | None
    ids: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    unreported: list[int] = field(default_factory=list)
    finish: str | None = None
    cached: int = 0

    @property
    def temperature(self) -> float:
        """The temperature for its next token; a constraint may set its own."""
        own = getattr(self.constraint, "temperature", None)
        return self.request.temperature if own is None else own

    def replacement(self, token: int) -> list[int]:
        """The tokens to append for a sampled one: itself, unless the constraint replaces it."""
        instead = getattr(self.constraint, "instead", None)
        return instead(token) if instead else [token]

    def append(self, tokens: list[int]) -> list[int]:
        """Append tokens and whatever the constraint forces after them, up to the end; returns all that were added."""
        added = []
        while tokens and self.finish is None:
            for token in tokens:
                self.ids.append(token)
                added.append(token)
                if self.constraint:
                    self.constraint.accept(token)
                if token in self.request.stop_ids or (self.request.until and self.request.until(self.ids)):
                    self.finish = "stop"
                elif len(self.ids) >= self.limit:
                    self.finish = "length"
                if self.finish:
                    break
            tokens = self.constraint.forced() if self.constraint and self.finish is None else []
        return added


def mask_logits(sequences: list[Sequence], logits: Tensor) -> Tensor:
    """The logits `(B, V)` with -inf for tokens that a constraint forbids, and for stop ids before `min_tokens`."""
    scores = logits
    for n, sequence in enumerate(sequences):
        mask = sequence.constraint.mask() if sequence.constraint else None
        early = len(sequence.ids) < sequence.request.min_tokens and sequence.request.stop_ids
        if mask is None and not early:
            continue
        scores = logits.clone() if scores is logits else scores
        if mask is not None:  # it may be shorter than V: embedding rows without a token
            scores[n, : len(mask)].masked_fill_(~mask[: scores.shape[1]].to(scores.device), float("-inf"))
            scores[n, len(mask) :] = float("-inf")
        if early:
            scores[n, sorted(sequence.request.stop_ids)] = float("-inf")
        if not bool((scores[n] > float("-inf")).any()):
            raise GPTError("the constraint and min_tokens together allow no token: lower min_tokens")
    return scores


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


def probabilities(
    logits: Tensor, temperature: list[float], top_k: list[int], top_p: list[float], min_p: list[float]
) -> Tensor:
    """The distributions `(B, V)` that rows of fp32 logits are sampled from; a temperature of 0 is taken as 1.

    A filter that no row uses costs nothing; one that some rows use leaves the others unchanged.
    """
    scores = logits
    if any(t not in (0, 1) for t in temperature):
        scores = scores / column([t or 1.0 for t in temperature], scores)
    if any(top_k):
        scores = keep_top_k(scores, top_k)
    if any(p < 1 for p in top_p):
        scores = keep_top_p(scores, top_p)
    if any(min_p):
        scores = keep_min_p(scores, min_p)
    return scores.softmax(dim=-1)


def draw(
    logits: Tensor,
    uniforms: list[list[float]],
    temperature: list[float],
    top_k: list[int],
    top_p: list[float],
    min_p: list[float],
) -> list[int]:
    """One token per row from fp32 logits `(B, V)`: greedy if the temperature is 0, else sampled with the row's uniform
    numbers."""
    if not any(temperature):
        return logits.argmax(dim=-1).tolist()
    drawn = descend(probabilities(logits, temperature, top_k, top_p, min_p), uniforms)
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
