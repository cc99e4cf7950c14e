"""What the engine is asked for (`Request`), one sample of it while it is generated (`Sequence`), and what comes back
(`Token`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.sampling import Stream

PrefillKey = tuple[tuple[int, ...], str | None]  # a prompt's ids and its adapter: prompts that share it are read once


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
    """A prompt and how to continue it. Sample k uses the random stream of seed + k, so it is the sample that seed + k
    alone would give, as far as logits round alike in batches of different size (`sampling.descend`).

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 filter nothing. A token of `stop_ids` ends a sample
    once it has `min_tokens`. `top_logprobs` alternatives are reported with each token. `adapter` names the peft adapter
    to use, `"__base__"` none of them, None the active ones. `until(ids)` is called with all ids of a sample after each
    token; True ends it with finish "stop" (stop strings work this way). `lookup` allows prompt-lookup decoding
    (`lookup.py`) for a single greedy sample.
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
    until: Callable[[list[int]], bool] | None = None
    lookup: bool = False


class Token(NamedTuple):
    """One token of one sample.

    `logprob` (nats) and `top`, pairs of id and nats, belong to the model's own distribution: temperature 1, no mask.
    `seconds` is the time of the step that made it. `finish` is None before the last token, which has "stop" (it is then
    a stop id and no part of the text) or "length".
    """

    request: int
    sample: int
    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    seconds: float
    finish: str | None


@dataclass
class Sequence:
    """One sample while it is generated.

    `pending`: tokens the model has not read yet; `unreported`: those of them whose log-probability is still to come,
    because they were forced; `finish` is set as soon as the last token is known.
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

    @property
    def prefill_key(self) -> PrefillKey:
        return self.request.ids, self.request.adapter

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
