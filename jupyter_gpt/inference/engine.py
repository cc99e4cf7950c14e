"""Sampling from a causal LM, one token at a time, with a key-value cache.

A generator: it yields each token as it is drawn, so whoever iterates can show it, stop it, or train in between. Every
sample has its own random stream, drawn on the CPU, so the same seed gives the same uniforms on every device.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def sample(
    model: nn.Module,
    ids: list[int],
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    stop: frozenset[int] = frozenset(),
) -> Iterator[int]:
    """Continue the prompt `ids`; yields at most `max_tokens` token ids and ends early after one in `stop`.

    `temperature` 0 is greedy. The prompt and the sample together are kept within the model's context.
    """
    generator = torch.Generator().manual_seed(seed)
    limit = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    max_tokens = min(max_tokens, limit - len(ids))
    feed, cache = torch.tensor([ids], device=model.device), None
    for _ in range(max_tokens):
        logits, cache = forward(model, feed, cache)
        token = pick(logits, temperature, generator)
        yield token
        if token in stop:
            return
        feed = torch.tensor([[token]], device=model.device)


@torch.inference_mode()
def forward(model: nn.Module, ids: Tensor, cache):
    """One pass over the new tokens `(1, t)`; returns the last logits `(V,)` in fp32 on the CPU, and the cache."""
    out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return out.logits[0, -1].float().cpu(), out.past_key_values


def pick(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """One token from logits `(V,)` by inverse CDF: a single uniform number decides it."""
    if temperature == 0:
        return int(logits.argmax())
    cdf = torch.softmax(logits / temperature, dim=-1).double().cumsum(0)
    uniform = torch.rand((), dtype=torch.float64, generator=generator) * cdf[-1]
    return int(torch.searchsorted(cdf, uniform, right=True).clamp(max=len(cdf) - 1))
