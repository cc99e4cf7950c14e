"""The most probable alternatives at each token of a completion, computed afterwards in one pass over it.

A transformer reads a given text in one pass, so whoever asks later pays for one prefill; sampling need not keep
alternatives that may never be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jupyter_gpt.runs.worker import worker

COUNT = 5
BLOCK = 128  # positions whose distributions over the vocabulary are sorted together


def with_alternatives(model, completion):
    """The completion with its `top` filled in by one pass of `model` on the worker.

    Unchanged if it has them, or if its prompt no longer tokenizes to as many tokens.
    """
    from jupyter_gpt.data.render import encode

    prompt = encode(model.tokenizer, completion.prompt)
    if any(completion.top) or not completion.tokens or not prompt or len(prompt) != completion.prompt_tokens:
        return completion

    def job():
        yield
        return alternatives(model.module, prompt, completion.tokens, COUNT)

    return replace(completion, top=worker("torch").submit(job()).wait())


def alternatives(
    module, prompt: Sequence[int], tokens: Sequence[int], count: int
) -> list[tuple[tuple[int, float], ...]]:
    """For each of `tokens`, sampled after `prompt`, the `count` most probable tokens as (id, log-probability in nats).

    They are of the model's own distribution; `prompt` has at least one id.
    """
    import torch

    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *tokens[:-1]]], device=module.device)
        logits = module(input_ids=ids, use_cache=False, logits_to_keep=len(tokens)).logits[0]  # (len(tokens), V)
        found = []
        for block in logits.split(BLOCK):
            values, places = torch.log_softmax(block.float(), dim=-1).topk(min(count, block.shape[-1]))
            pairs = zip(places.tolist(), values.tolist(), strict=True)
            found += [tuple(zip(ids, nats, strict=True)) for ids, nats in pairs]
    return found
