"""The engine: many samples of many prompts from one causal LM, token by token.

Notable: a prompt is read once and then multiplied into its samples; prompts of mixed lengths share each step;
a row that is finished leaves at once and a waiting one takes its place; every sample has its own random
stream, so it is the same whatever runs beside it; log probabilities come from the same pass; a constraint may
mask tokens or force them.

`generate` is a generator and never yields inside a torch context. `batch.Batch` is what it iterates; a server
adds requests to one that is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor, nn


class Constraint(Protocol):
    """What one sample may say, told token by token. A fresh one is made for each sample.

    One may also have `instead(id) -> list[int]`, the tokens to take in the place of the one that was drawn, and a
    `temperature` for the next token (None: the request's).
    """

    def mask(self) -> Tensor | None:
        """The tokens allowed next, `(V,)` bool; None when all are."""

    def forced(self) -> list[int]:
        """Tokens that must come next, perhaps none; they are appended in one pass, not drawn."""

    def accept(self, id: int) -> None:
        """Told of every token that the sample gained, drawn or forced."""


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it. Sample k draws from the stream of seed + k: its tokens are those that seed + k alone
    would give, as far as logits of a batch of another size round alike (`sampling.descend`).

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 filter nothing. A token of `stop_ids` ends a
    sample, not before `min_tokens`. `top_logprobs` alternatives are reported with each token. `adapter` names
    the peft adapter to use, `"__base__"` none of them, None those that are active. `until` is told all ids of
    a sample after each token; where it answers True the sample ends with finish "stop" (that is how a stop
    string is done). `lookup` lets one greedy sample alone be guessed from its prompt (`lookup.py`): the same
    tokens, several a pass.
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
    adapter: str | None = None
    until: Callable[[Sequence[int]], bool] | None = None
    lookup: bool = False


class Token(NamedTuple):
    """One token of one sample.

    `logprob` (nats) and `top`, pairs of id and nats, are of the model's own distribution, at temperature 1
    and unmasked. `seconds` is the work of the step that made it. `finish` is None until the last token, which
    has "stop" (it is then a stop id itself, and no part of the text) or "length".
    """

    request: int
    sample: int
    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    seconds: float
    finish: str | None


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
    from jupyter_gpt.inference.forward import context_of

    if len(ids) >= context_of(model):
        return
    request = Request(tuple(ids), max_tokens=max_tokens, temperature=temperature, seed=seed, stop_ids=stop)
    for token in generate(model, [request]):
        if token is not None:
            yield token.id
