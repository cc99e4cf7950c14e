"""What alignment gained and what it cost: the models of the lineage answer the same prompts and are measured alike.

The reward says who wins, so a win is a win by that reward and no more; what it does not see, the other columns show:
how varied the answers still are, and how surprised each model is by what the start says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from jupyter_gpt.evaluation.bradley_terry import by_score, win_rates
from jupyter_gpt.evaluation.diversity import distinct, identical, self_bleu
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.rl_losses import masked_mean
from jupyter_gpt.stages.rewards import rewarded
from jupyter_gpt.stages.rollout import Asked, Rollout, roll_out

SAMPLES = 8  # of each prompt
FAR = 30.0  # nats a token, a perplexity of 1e13: of a policy that has diverged


class Party(NamedTuple):
    """A model that takes part: its name, where in the lineage it stands, and how it is asked."""

    name: str
    stage: str
    module: nn.Module
    tokenizer: object
    asked: list[Asked]
    stop: frozenset[int]


def measured(training, parties: list[Party]) -> Iterator[dict | None]:
    """Yields None and `Call`s on the way and at last an event `measures`: a row a model, the last the policy.

    Win rates are against the last but one, the start of the run.
    """
    from jupyter_gpt.stages.rollout import EVALUATION, known, stream

    began, found, rows = time.perf_counter(), {}, []
    for party in parties:
        drawn = yield from roll_out(
            party.module,
            party.tokenizer,
            party.asked,
            SAMPLES,
            training.recipe.max_tokens,
            party.stop,
            stream(training, 1, EVALUATION),
        )
        if training.rewards:
            drawn.rewards = yield from rewarded(training.rewards, drawn.prompts, drawn.texts, drawn.finished)
        found[party.name] = drawn
    start = parties[-2]
    rates = None
    if training.rewards:
        played = []
        for n, one in enumerate(parties):
            for m, other in enumerate(parties[n + 1 :], start=n + 1):
                scores = found[one.name].rewards, found[other.name].rewards
                played += by_score(n, scores[0], m, scores[1], found[start.name].prompts)
        rates = win_rates(played, len(parties), len(parties) - 2)
    for number, party in enumerate(parties):
        drawn, reader = found[party.name], Reader(party.module, training.policy.trunk.dtype)
        _, entropy = yield from known(reader, training, drawn.rows)
        row = {
            "model": party.name,
            "stage": party.stage,
            "entropy": float(masked_mean(entropy, drawn.mask)),
            **varied(drawn),
        }
        if party.asked == start.asked:  # the same ids: what the start says can be read
            logp, _ = yield from known(reader, training, found[start.name].rows)
            row["perplexity"] = perplexity(-float(masked_mean(logp, found[start.name].mask)))
        if rates:
            row["reward"] = sum(drawn.rewards) / len(drawn.rewards)
            row["win_rate"], row["win_low"], row["win_high"] = (0.5, None, None) if party is start else rates[number]
        rows.append(row)
    yield {
        "event": "measures",
        "step": training.step,
        "rows": rows,
        "prompts": len(start.asked),
        "samples": SAMPLES,
        "seconds": time.perf_counter() - began,
    }


def perplexity(nats: float) -> float | None:
    """That of so many nats a token; None where the model has gone so far that it is no number to read."""
    return math.exp(nats) if nats < FAR else None


def varied(drawn: Rollout) -> dict:
    """The measures of diversity, over the samples of each prompt."""
    groups = [drawn.texts[n : n + drawn.samples] for n in range(0, len(drawn.texts), drawn.samples)]
    return {
        "distinct_1": distinct(groups, 1),
        "distinct_2": distinct(groups, 2),
        "self_bleu": self_bleu(groups),
        "identical": identical(groups),
    }
