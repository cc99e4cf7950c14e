"""The engine: many samples of many prompts from one causal LM, token by token.

Notable: a prompt is read once and then multiplied into its samples; prompts of mixed lengths share each step;
a row that is finished leaves at once and a waiting one takes its place; every sample has its own random
stream, so it is the same whatever runs beside it; log probabilities come from the same pass; a constraint may
mask tokens or force them.

`generate` is a generator and never yields inside a torch context. `batch.Batch` is what it iterates; a server
adds requests to one that is under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from jupyter_gpt.inference.requests import Request, Token


def generate(module: nn.Module, requests: Sequence[Request]) -> Iterator[Token | None]:
    """Continue the prompts of `requests` with a transformers causal LM or a peft model of one.

    Yields each token as it is sampled, request and sample numbered as given, and None between the passes that
    read the prompts. Prompt and sample together are kept within the model's context (finish "length"). Raises
    GPTError for an empty prompt and for one that leaves no room in the context.
    """
    from jupyter_gpt.inference.batch import Batch
    from jupyter_gpt.inference.lookup import Lookup, suits

    batch = Lookup(module) if suits(requests) else Batch(module)
    for request in requests:
        batch.add(request)
    while batch.busy:
        tokens = batch.step()
        yield from tokens or (None,)


def sample(
    model: nn.Module,
    ids: list[int],
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    stop: frozenset[int] = frozenset(),
) -> Iterator[int]:
    """One sample of one prompt: at most `max_tokens` ids, the last perhaps one of `stop`; none where there is
    no room."""
    from jupyter_gpt.nn.modules import context_of

    if len(ids) >= context_of(model):
        return
    request = Request(tuple(ids), max_tokens=max_tokens, temperature=temperature, seed=seed, stop_ids=stop)
    for token in generate(model, [request]):
        if token is not None:
            yield token.id
