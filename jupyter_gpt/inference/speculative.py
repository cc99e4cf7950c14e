"""Speculative decoding (Leviathan et al. 2022, Chen et al. 2023): tokens are drafted, and one pass verifies them all.

A pass over several tokens takes little longer than a pass over one: both read all weights once.

There are two sources of drafts. Prompt lookup (Saxena 2023): if the last few tokens occur earlier in the context, what
followed them there is the draft. A draft model: a smaller one with the same vocabulary.

What is kept of a draft leaves the model's distribution as it is. Greedily, and with prompt lookup always, a drafted
token is accepted if it is the one that plain decoding chooses from the same logits, with the same random numbers of the
sample: the tokens are those of plain decoding, up to rounding. A token that a draft model sampled is accepted by
rejection sampling: the answer has the same distribution, but is another one than without the draft model. In both cases
a seed gives the same answer each time.

How many tokens are drafted depends on nothing but what was accepted so far, never on a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jupyter_gpt.inference import sampling
from jupyter_gpt.inference.forward import forward_of
from jupyter_gpt.inference.kv_cache import KVCache
from jupyter_gpt.inference.sampling import Request, Sequence
from jupyter_gpt.nn.modules import base_of, context_of

LONGEST, SHORTEST = 3, 2  # length of the n-grams that are looked up
MOST = 16  # tokens drafted at once
# time of a pass over 1 + k tokens beyond that of a pass over one, which is 1: FIRST + k * EACH. SmolLM2-135M in fp32 on
# one core takes 0.13 for k = 1, 0.31 for 4 and 0.75 for 15; a machine with less arithmetic per byte takes more
FIRST, EACH = 0.1, 0.08
SHARE = 0.02  # passes per token that drafts may cost more than they gain
CREDIT, CEILING = 0.5, 4.0  # passes they may cost before they have gained any; the most that is saved up
DECAY = 0.9  # per draft: how fast earlier acceptance is forgotten
DRAFT_STREAM = 1 << 64  # added to a sample's number: the random numbers of its draft model
BLOCK = 1024  # tokens of the prompt that a draft model reads per pass


class Draft(NamedTuple):
    """Drafted tokens, and the distribution `(V,)` each was sampled from; none if they were not sampled."""

    tokens: list[int]
    distributions: list[Tensor]


NOTHING = Draft([], [])


class Pace:
    """How many tokens to draft: as many as make the answer fastest if each is accepted as often as the recent ones
    (Leviathan et al. 2022, 3.3), and none while drafts have cost more passes than they saved, beyond a small share.

    `cost` is the time of drafting one token, in passes of the model.
    """

    def __init__(self, cost: float = 0.0):
        self.each = EACH + cost
        self.balance = max(CREDIT, self.price(1))
        self.accepted, self.tried = 1.0, 2.0

    def length(self) -> int:
        rate = self.accepted / self.tried

        def speed(k: int) -> float:
            tokens = (1 - rate ** (k + 1)) / (1 - rate) if rate < 1 else k + 1
            return tokens / (1 + self.price(k))

        best = max(range(1, MOST + 1), key=speed)
        while best and self.price(best) > self.balance:
            best -= 1
        return best

    def price(self, k: int) -> float:
        return FIRST + k * self.each

    def add(self, drafted: int, accepted: int) -> None:
        """Count a pass, with a draft or without one."""
        if drafted:
            self.accepted = DECAY * self.accepted + accepted
            self.tried = DECAY * self.tried + accepted + (accepted < drafted)
        gain = accepted - (self.price(drafted) if drafted else 0.0)
        self.balance = min(CEILING, self.balance + gain + SHARE * (accepted + 1))


class PromptLookup:
    """Drafts what followed the last earlier occurrence of the last tokens, the longest n-gram that occurs."""

    cost = 0.0

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.after: dict[tuple[int, ...], int] = {}  # n-gram -> where its last continuation begins

    def read(self, ids: list[int]) -> bool:
        """Take in the context, which has grown; True: ready to draft."""
        for at in range(len(self.ids), len(ids)):
            for n in range(SHORTEST, min(LONGEST, at) + 1):
                self.after[tuple(ids[at - n : at])] = at
        self.ids = ids
        return True

    def draft(self, sequence: Sequence, most: int) -> Draft:
        """At most `most` tokens; a text that repeats itself is drafted as going on to do so."""
        ids = self.ids
        for n in range(LONGEST, SHORTEST - 1, -1):
            start = self.after.get(tuple(ids[-n:])) if len(ids) >= n else None
            if start is not None:
                tokens: list[int] = []
                for at in range(start, start + most):
                    tokens.append(ids[at] if at < len(ids) else tokens[at - len(ids)])
                return Draft(tokens, [])
        return NOTHING


class DraftModel:
    """Drafts the tokens of a smaller model, greedily or sampled as the request says. Its KV cache keeps what it read of
    the context; what was rejected is dropped from it."""

    def __init__(self, module: nn.Module, target: nn.Module, request: Request):
        self.forward, self.context = forward_of(module), context_of(module)
        self.cost = relative_cost(module, target)
        self.device = next(module.parameters()).device
        self.vocabulary = base_of(target).config.get_text_config().vocab_size
        self.cache = KVCache(1, len(request.ids) + request.max_tokens, self.device)
        self.stream = request.stream(DRAFT_STREAM)
        self.ids: list[int] = []  # the context
        self.cached: list[int] = []  # what the cache holds

    def read(self, ids: list[int]) -> bool:
        """Take in the context; False after a pass that read a part of it, True when it is ready to draft."""
        kept = min(len(self.cached), len(self.ids))
        while kept < min(len(self.cached), len(ids)) and self.cached[kept] == ids[kept]:
            kept += 1
        if kept < len(self.cached):
            self.cache.truncate(len(self.cached) - kept)
            del self.cached[kept:]
        self.ids = ids
        if len(ids) - kept <= BLOCK or len(ids) >= self.context:
            return True
        self.step(ids[kept : kept + BLOCK])
        return False

    def draft(self, sequence: Sequence, most: int) -> Draft:
        """At most `most` tokens, and no more than its context holds."""
        tokens, distributions = [], []
        unread = self.ids[len(self.cached) :]
        for _ in range(min(most, self.context - len(self.ids))):
            logits = self.step(unread)
            if sequence.temperature:
                q = distribution(logits, sequence)
                distributions.append(q)
                tokens += sampling.descend(q[None], [self.stream.next()])
            else:
                tokens.append(int(logits.argmax()))
            unread = tokens[-1:]
        return Draft(tokens, distributions)

    def step(self, ids: list[int]) -> Tensor:
        """Read ids; returns the logits `(V,)` of the next token, as many as the verifying model has."""
        positions, mask = self.cache.append([len(ids)], len(ids))
        logits = self.forward(torch.tensor([ids], device=self.device), positions, mask, self.cache, 1)[0, -1]
        self.cached += ids
        missing = self.vocabulary - len(logits)
        return torch.nn.functional.pad(logits, (0, missing), value=float("-inf")) if missing else logits


def drafter_of(module: nn.Module, request: Request) -> PromptLookup | DraftModel | None:
    """What drafts the tokens of a request, None if it is decoded plainly: drafts are for one sample.

    Where lookup is left open it is used in fp32 on a CPU. In other dtypes a pass over several tokens rounds otherwise
    than one over each, so greedy text may change; and on a GPU, steps of one token alone are replayed as CUDA graphs.
    """
    if request.samples != 1:
        return None
    if request.draft is not None:
        return DraftModel(request.draft, module, request)
    weight = next(module.parameters())
    exact = weight.device.type == "cpu" and weight.dtype == torch.float32
    return PromptLookup() if request.lookup or (request.lookup is None and exact) else None


def relative_cost(draft: nn.Module, target: nn.Module) -> float:
    """About how long a step of `draft` takes, in steps of `target`: large models by their weights, small ones by the
    number of their operations."""

    def size(module: nn.Module) -> tuple[int, int]:
        base = base_of(module)
        return sum(p.numel() for p in base.parameters()), getattr(base.config, "num_hidden_layers", 1)

    return max(mine / theirs for mine, theirs in zip(size(draft), size(target), strict=True))


def distribution(scores: Tensor, sequence: Sequence) -> Tensor:
    """The distribution `(V,)` that a sequence samples from, given fp32 logits `(V,)`."""
    r = sequence.request
    return sampling.probabilities(scores[None], [sequence.temperature], [r.top_k], [r.top_p], [r.min_p])[0]


def accept_or_resample(token: int, q: Tensor, p: Tensor, uniform: float, resampling: Callable[[], list[float]]) -> int:
    """`token`, which was sampled from `q`, with probability p / q; else one sampled from what `p` exceeds `q` by.

    The result has the distribution `p` (Leviathan et al. 2022, appendix A.1).
    """
    q = q.to(p.device)
    if uniform * float(q[token]) < float(p[token]):
        return token
    rest = (p - q).clamp(min=0)
    return sampling.descend((rest if float(rest.sum()) > 0 else p)[None], [resampling()])[0]
