"""The engine asked for tokens, and what transformers' `generate` says to the same prompts."""

from collections import defaultdict

import torch

from helpers.shapes import VOCAB
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request

STOP = frozenset(range(7, VOCAB, 16))


def run(module, requests, reuse=False):
    """Tokens by (request, sample)."""
    said = defaultdict(list)
    for token in generate(module, requests, reuse):
        if token is not None:
            said[token.request, token.sample].append(token)
    return said


def ids_of(tokens):
    return [token.id for token in tokens]


def theirs(module, prompt, count, **options):
    """What generate continues one prompt with, greedily."""
    ids = torch.tensor([prompt])
    out = module.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=sorted(STOP),
        pad_token_id=0,
        **options,
    )
    return out[0, len(prompt) :].tolist()


def same_as_generate(module, prompts, count=20):
    said = run(module, [Request(p, max_tokens=count, temperature=0, stop_ids=STOP) for p in prompts])
    for number, prompt in enumerate(prompts):
        assert ids_of(said[number, 0]) == theirs(module, prompt, count), f"prompt {number} of {len(prompt)} tokens"
    return said
