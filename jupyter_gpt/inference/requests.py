"""What the engine is asked for, a sample each, and what comes back, a token each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


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
    """A prompt and how to continue it. Sample k draws from the stream of seed + k: its tokens are those that seed + k
    alone
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
