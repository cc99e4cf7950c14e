"""Completions that the policy samples and is then judged by, with what the policy itself thought of each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jupyter_gpt.data.prompt_completion import PromptCompletion, batches
from jupyter_gpt.evaluation.metrics import identical
from jupyter_gpt.inference.answer import decoder
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.nn.logprobs import Reader, laid_out, logprobs, mask_of

STREAMS = 1 << 10  # random streams kept for the samples of one prompt

EVALUATION, SAMPLES = 1 << 40, 1 << 41  # streams apart from those of the training


class Asked(NamedTuple):
    """A prompt as it was written, and as it is sent."""

    text: str
    ids: tuple[int, ...]


@dataclass
class Rollout:
    """`samples` completions of each prompt, those of one prompt side by side: B rows of at most L tokens.

    rows: in ids, with the token that ended each, if one did.  prompts, texts: in words.  finish_reasons: "stop" of
    those that ended, "length" of those cut at the token limit.  old: `(B, L)` log-probabilities in nats when they were
    sampled, at temperature 1.  rewards: `(B,)`, once they are known.
    """

    samples: int
    rows: list[PromptCompletion]
    prompts: list[str]
    texts: list[str]
    finish_reasons: list[str]
    old: Tensor
    rewards: Any = None  # a tensor

    @property
    def mask(self) -> Tensor:
        return mask_of(self.rows, self.old.device)

    @property
    def finished(self) -> list[bool]:
        """Whether each completion came to its end."""
        return [reason != "length" for reason in self.finish_reasons]

    @property
    def truncated(self) -> Tensor:
        """`(B,)`, True where a completion was cut at the token limit."""
        return ~torch.tensor(self.finished, device=self.old.device)

    @property
    def tokens(self) -> int:
        """Tokens sampled."""
        return sum(len(row.completion) for row in self.rows)

    @property
    def length(self) -> float:
        """Mean length of a completion, in tokens."""
        return self.tokens / len(self.rows)

    @property
    def identical(self) -> float | None:
        """Share of pairs of completions of one prompt that are the same text; None where there are no pairs."""
        return identical([self.texts[n : n + self.samples] for n in range(0, len(self.texts), self.samples)])


def roll_out(
    policy: nn.Module, tokenizer, asked: Sequence[Asked], samples: int, max_tokens: int, stop: frozenset[int], seed: int
) -> Iterator[None]:
    """Sample; yields after each token, returns the `Rollout` without rewards. `seed` decides every sample."""
    requests = [
        Request(
            one.ids, samples=samples, max_tokens=max_tokens, temperature=1.0, stop_ids=stop, seed=(seed + n) * STREAMS
        )
        for n, one in enumerate(asked)
    ]
    decode = decoder(tokenizer)
    ids: list[list[int]] = [[] for _ in range(len(asked) * samples)]
    nats: list[list[float]] = [[] for _ in ids]
    reasons = ["length"] * len(ids)
    for token in generate(policy, requests):
        if token is not None:
            place = token.request * samples + token.sample
            ids[place].append(token.id)
            nats[place].append(token.logprob)
            reasons[place] = token.finish or reasons[place]
        yield
    rows = [PromptCompletion(asked[place // samples].ids, tuple(said)) for place, said in enumerate(ids)]
    texts = [decode(said[:-1] if said[-1] in stop else said) for said in ids]
    device = next(policy.parameters()).device
    old = laid_out(torch.tensor([x for row in nats for x in row], device=device), rows)
    return Rollout(samples, rows, [one.text for one in asked for _ in range(samples)], texts, reasons, old)


def stream(training, step: int, kind: int = 0) -> int:
    """The first of the random streams of a step."""
    return kind + (training.recipe.seed << 24) + step * 4096


def micro_batches(training, rows: Sequence[PromptCompletion]) -> list[list[int]]:
    """Places of rows that pass through the models together."""
    return batches([len(row.ids) for row in rows], training.recipe.micro_tokens)


def logprobs_and_entropy(reader: Reader, training, rows: Sequence[PromptCompletion]) -> Iterator[None]:
    """Log-probabilities and entropies `(B, L)` of all completions, without gradients; yields between micro-batches."""
    logp = torch.zeros(mask_of(rows).shape, device=training.device)
    entropy = torch.zeros_like(logp)
    for places in micro_batches(training, rows):
        with torch.no_grad():
            some, nats = logprobs(reader, [rows[p] for p in places])
            logp[places, : some.shape[1]], entropy[places, : some.shape[1]] = some, nats
        yield
    return logp, entropy
