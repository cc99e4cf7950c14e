"""What else could have been said: the likeliest tokens at each place of a completion, from one pass over it.

A transformer reads a text that is already there in one go, so whoever asks afterwards pays for one prefill;
sampling need not keep alternatives that nobody may look at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

BLOCK = 128  # places whose distributions over the vocabulary are sorted together


@torch.inference_mode()
def alternatives(
    module: nn.Module, prompt: Sequence[int], tokens: Sequence[int], count: int
) -> list[tuple[tuple[int, float], ...]]:
    """For each of `tokens`, sampled after `prompt`, the `count` likeliest tokens there, likeliest first.

    Each is (id, log-probability in nats) of the model's own distribution. `prompt` holds at least one id.
    """
    ids = torch.tensor([[*prompt, *tokens[:-1]]], device=module.device)
    logits = module(input_ids=ids, use_cache=False, logits_to_keep=len(tokens)).logits[0]  # (len(tokens), V)
    found = []
    for block in logits.split(BLOCK):
        values, places = torch.log_softmax(block.float(), dim=-1).topk(min(count, block.shape[-1]))
        pairs = zip(places.tolist(), values.tolist(), strict=True)
        found += [tuple(zip(ids, nats, strict=True)) for ids, nats in pairs]
    return found
