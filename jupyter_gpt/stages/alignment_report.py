"""What alignment gained and what it cost: the models of the lineage answer the same prompts and are measured alike.

The reward says who wins, so a win is a win by that reward and no more; what it does not see, the other columns show:
how varied the answers still are, and how surprised each model is by what the start says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from jupyter_gpt.evaluation.bradley_terry import by_score, win_rates
from jupyter_gpt.evaluation.metrics import distinct, identical, self_bleu
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.rl_losses import masked_mean
from jupyter_gpt.runs.events import Table
from jupyter_gpt.stages.rewards import rewarded
from jupyter_gpt.stages.rollout import Asked, Rollout, roll_out

SAMPLES = 8  # of each prompt
COLUMNS = {
    "win_rate": "win rate",
    "reward": "mean reward",
    "perplexity": "perplexity",
    "entropy": "entropy",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "self_bleu": "self-BLEU",
    "identical": "identical",
}
NOTE = (
    "Win rate: against the start, by the reward, with its 95% interval. Perplexity: of what the start says. Entropy: "
    "nats per token. Distinct-n: share of different n-grams. Self-BLEU and identical: how alike samples of one prompt "
    "are."
)
FAR = 30.0  # nats a token, a perplexity of 1e13: of a policy that has diverged


class EvaluatedModel(NamedTuple):
    """A model that takes part: its name, where in the lineage it stands, and how it is asked."""

    name: str
    stage: str
    module: nn.Module
    tokenizer: object
    asked: list[Asked]
    stop: frozenset[int]


def measured(training, models: list[EvaluatedModel]) -> Iterator:
    """Yields None and `Call`s on the way and at last a `Table`: a row a model, the last the policy.

    Win rates are against the last but one, the start of the run.
    """
    from jupyter_gpt.stages.rollout import EVALUATION, logprobs_and_entropy, stream

    found, rows = {}, []
    for one in models:
        rollout = yield from roll_out(
            one.module,
            one.tokenizer,
            one.asked,
            SAMPLES,
            training.recipe.max_tokens,
            one.stop,
            stream(training, 1, EVALUATION),
        )
        if training.rewards:
            rollout.rewards = yield from rewarded(training.rewards, rollout.prompts, rollout.texts, rollout.finished)
        found[one.name] = rollout
    start = models[-2]
    rates = None
    if training.rewards:
        played = []
        for n, one in enumerate(models):
            for m, other in enumerate(models[n + 1 :], start=n + 1):
                scores = found[one.name].rewards, found[other.name].rewards
                played += by_score(n, scores[0], m, scores[1], found[start.name].prompts)
        rates = win_rates(played, len(models), len(models) - 2)
    for number, one in enumerate(models):
        rollout, reader = found[one.name], Reader(one.module, training.policy.trunk.dtype)
        _, entropy = yield from logprobs_and_entropy(reader, training, rollout.rows)
        row = {
            "model": one.name,
            "stage": one.stage,
            "entropy": float(masked_mean(entropy, rollout.mask)),
            **varied(rollout),
        }
        if one.asked == start.asked:  # the same ids: what the start says can be read
            logp, _ = yield from logprobs_and_entropy(reader, training, found[start.name].rows)
            row["perplexity"] = perplexity(-float(masked_mean(logp, found[start.name].mask)))
        if rates:
            row["reward"] = sum(rollout.rewards) / len(rollout.rewards)
            row["win_rate"], row["win_low"], row["win_high"] = (0.5, None, None) if one is start else rates[number]
        rows.append(row)
    yield alignment_table(training.step, rows, len(start.asked), SAMPLES)


def alignment_table(step: int, measures: Sequence[Mapping], prompts: int, samples: int) -> Table:
    """A row a model; measures that none of them has are left out."""
    shown = [key for key in COLUMNS if any(one.get(key) is not None for one in measures)]
    rows = []
    for one in measures:
        found = {key: one.get(key) for key in shown}
        if one.get("win_low") is not None:
            found["win_rate"] = [one["win_rate"], one["win_low"], one["win_high"]]
        rows.append([f"{one['model']} ({one['stage']})", *found.values()])
    title = f"gains and costs of alignment, on {prompts} prompts × {samples} samples"
    columns = ["model", *(COLUMNS[key] for key in shown)]
    return Table(step=step, title=title, note=NOTE, columns=columns, rows=rows, chart="bars")


def perplexity(nats: float) -> float | None:
    """That of so many nats a token; None where the model has gone so far that it is no number to read."""
    return math.exp(nats) if nats < FAR else None


def varied(rollout: Rollout) -> dict:
    """The measures of diversity, over the samples of each prompt."""
    groups = [rollout.texts[n : n + rollout.samples] for n in range(0, len(rollout.texts), rollout.samples)]
    return {
        "distinct_1": distinct(groups, 1),
        "distinct_2": distinct(groups, 2),
        "self_bleu": self_bleu(groups),
        "identical": identical(groups),
    }
