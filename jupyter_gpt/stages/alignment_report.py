"""Gains and costs of alignment: the models of the lineage answer the same prompts and are measured alike.

A win is a win by the reward of the run. The other columns show what the reward does not: how varied the answers still
are, and how probable each model finds the completions of the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from torch import nn

from jupyter_gpt.evaluation.bradley_terry import by_score, win_rates
from jupyter_gpt.evaluation.metrics import distinct, identical, self_bleu
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.rl_losses import masked_mean
from jupyter_gpt.runs.events import Table
from jupyter_gpt.stages.rollout import EVALUATION, Prompt, Rollout, logprobs_and_entropy, rewarded, roll_out, seeds_of

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
    "Win rate: against the start, by the reward, with its 95% interval. Perplexity: of the start's completions. "
    "Entropy: nats per token. Distinct-n: share of different n-grams. Self-BLEU and identical: how alike samples of a "
    "prompt are."
)
FAR = 30.0  # nats per token, a perplexity of 1e13: the policy has diverged


class EvaluatedModel(NamedTuple):
    """A model of the comparison: its name, its stage in the lineage, and the prompts in its own tokens."""

    name: str
    stage: str
    module: nn.Module
    tokenizer: object
    prompts: list[Prompt]
    stop: frozenset[int]


def measured(training, models: list[EvaluatedModel]) -> Iterator:
    """Yields None and `Call`s, and at the end a `Table`: a row for each model, the last the policy.

    Win rates are against the last but one, the start of the run.
    """
    start, reference = len(models) - 2, models[-2]
    rollouts: list[Rollout] = []
    for each in models:
        seeds, tokens = seeds_of(training, 1, range(len(each.prompts)), EVALUATION), training.recipe.max_tokens
        rollout = yield from roll_out(each.module, each.tokenizer, each.prompts, SAMPLES, tokens, each.stop, seeds)
        if training.rewards:
            rollout.rewards = (yield from rewarded(training.rewards, rollout)).total
        rollouts.append(rollout)
    rates = None
    if training.rewards:
        games = []
        for (n, one), (m, other) in combinations(enumerate(rollouts), 2):
            games += by_score(n, one.rewards, m, other.rewards, rollouts[start].prompts)
        rates = win_rates(games, len(models), start)
    rows = []
    for number, (each, rollout) in enumerate(zip(models, rollouts, strict=True)):
        reader = Reader(each.module, training.policy.trunk.dtype)
        _, entropy = yield from logprobs_and_entropy(reader, training, rollout.rows)
        groups = [rollout.texts[n : n + rollout.samples] for n in range(0, len(rollout.texts), rollout.samples)]
        row = {
            "model": each.name,
            "stage": each.stage,
            "entropy": float(masked_mean(entropy, rollout.mask)),
            "distinct_1": distinct(groups, 1),
            "distinct_2": distinct(groups, 2),
            "self_bleu": self_bleu(groups),
            "identical": identical(groups),
        }
        if each.prompts == reference.prompts:  # the same ids: the start's completions can be read
            logp, _ = yield from logprobs_and_entropy(reader, training, rollouts[start].rows)
            row["perplexity"] = perplexity(-float(masked_mean(logp, rollouts[start].mask)))
        if rates:
            row["reward"] = sum(rollout.rewards) / len(rollout.rewards)
            row["win_rate"], row["win_low"], row["win_high"] = (0.5, None, None) if number == start else rates[number]
        rows.append(row)
    yield alignment_table(training.step, rows, len(reference.prompts), SAMPLES)


def alignment_table(step: int, measures: Sequence[Mapping], prompts: int, samples: int) -> Table:
    """A row for each model; measures that no model has are left out."""
    shown = [key for key in COLUMNS if any(each.get(key) is not None for each in measures)]
    rows = []
    for each in measures:
        values = {key: each.get(key) for key in shown}
        if each.get("win_low") is not None:
            values["win_rate"] = [each["win_rate"], each["win_low"], each["win_high"]]
        rows.append([f"{each['model']} ({each['stage']})", *values.values()])
    title = f"gains and costs of alignment, on {prompts} prompts × {samples} samples"
    columns = ["model", *(COLUMNS[key] for key in shown)]
    return Table(step=step, title=title, note=NOTE, columns=columns, rows=rows, chart="bars")


def perplexity(nats: float) -> float | None:
    """That of so many nats per token; None beyond FAR."""
    return math.exp(nats) if nats < FAR else None
