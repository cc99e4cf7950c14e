"""Speculative decoding (Leviathan et al. 2022, Chen et al. 2023): tokens are drafted, and one pass verifies them all.

A pass over several tokens takes little longer than a pass over one: both read all weights once.

Drafts are looked up in the context (prompt lookup, Saxena 2023): if the last few tokens occur earlier, what followed
them there is the draft. A drafted token is accepted if it is the one that plain decoding chooses from the same logits,
with the same random numbers of the sample: the tokens are those of plain decoding, up to rounding.

How many tokens are drafted depends on nothing but what was accepted so far, never on a clock.
"""

from __future__ import annotations

import torch
from torch import nn

from jupyter_gpt.inference.sampling import Request

LONGEST, SHORTEST = 3, 2  # length of the n-grams that are looked up
MOST = 16  # tokens drafted at once
# time of a pass over 1 + k tokens beyond that of a pass over one, which is 1: FIRST + k * EACH. SmolLM2-135M in fp32 on
# one core takes 0.13 for k = 1, 0.31 for 4 and 0.75 for 15; a machine with less arithmetic per byte takes more
FIRST, EACH = 0.1, 0.08
SHARE = 0.02  # passes per token that drafts may cost more than they gain
CREDIT, CEILING = 0.5, 4.0  # passes they may cost before they have gained any; the most that is saved up
DECAY = 0.9  # per draft: how fast earlier acceptance is forgotten


class Pace:
    """How many tokens to draft: as many as make the answer fastest if each is accepted as often as the recent ones
    (Leviathan et al. 2022, 3.3), and none while drafts have cost more passes than they saved, beyond a small share."""

    def __init__(self) -> None:
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
        return FIRST + k * EACH

    def add(self, drafted: int, accepted: int) -> None:
        """Count a pass, with a draft or without one."""
        if drafted:
            self.accepted = DECAY * self.accepted + accepted
            self.tried = DECAY * self.tried + accepted + (accepted < drafted)
        gain = accepted - (self.price(drafted) if drafted else 0.0)
        self.balance = min(CEILING, self.balance + gain + SHARE * (accepted + 1))


class PromptLookup:
    """Drafts what followed the last earlier occurrence of the last tokens, the longest n-gram that occurs."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.after: dict[tuple[int, ...], int] = {}  # n-gram -> where its last continuation begins

    def draft(self, ids: list[int], most: int) -> list[int]:
        """At most `most` tokens that may follow a context, which has grown since the last call; a text that repeats
        itself is drafted as going on to do so."""
        for at in range(len(self.ids), len(ids)):
            for n in range(SHORTEST, min(LONGEST, at) + 1):
                self.after[tuple(ids[at - n : at])] = at
        self.ids = ids
        for n in range(LONGEST, SHORTEST - 1, -1):
            start = self.after.get(tuple(ids[-n:])) if len(ids) >= n else None
            if start is not None:
                tokens: list[int] = []
                for at in range(start, start + most):
                    tokens.append(ids[at] if at < len(ids) else tokens[at - len(ids)])
                return tokens
        return []


def uses_lookup(module: nn.Module, request: Request) -> bool:
    """Whether the tokens of a request are drafted: drafts are for one sample.

    Where lookup is left open it is used in fp32 on a CPU. In other dtypes a pass over several tokens rounds otherwise
    than one over each, so greedy text may change; and on a GPU, steps of one token alone are replayed as CUDA graphs.
    """
    if request.samples != 1 or request.lookup is not None:
        return request.samples == 1 and bool(request.lookup)
    weight = next(module.parameters())
    return weight.device.type == "cpu" and weight.dtype == torch.float32
