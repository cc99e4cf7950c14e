"""DPO (Rafailov et al. 2023) and its relatives: the policy learns from rankings, by the rewards it implies.

Training samples nothing and needs no reward model; samples are drawn for evaluations only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from jupyter_gpt.data.prompt_completion import PromptCompletion
from jupyter_gpt.evaluation.metrics import wilson
from jupyter_gpt.nn.logprobs import Reader, logprobs
from jupyter_gpt.nn.preference_loss import implied_rewards, preference_loss, right
from jupyter_gpt.runs.events import Metric
from jupyter_gpt.stages import rl
from jupyter_gpt.stages.loop import batch_of, losses
from jupyter_gpt.stages.rl import RL

METRICS = (
    *losses("ranking"),
    Metric("accuracy", "accuracy on pairs", format=".1%", interval=("low", "high"), summary=True),
    Metric("margin", "implied reward margin", format=".2f"),
    rl.REWARD,
    rl.KL,
    rl.ENTROPY,
    rl.LENGTH,
    rl.TRUNCATED,
    rl.IDENTICAL,
)


def evaluation(training: RL) -> Iterator[None]:
    """Returns loss and accuracy of the policy's implied rewards on held-out rankings; yields after each."""
    nats, hits, pairs = [], 0, 0
    for one in training.held_out:
        with torch.no_grad():
            loss, implied = judged(training, one)
        nats.append(float(loss))
        hit, count = right(implied.tolist(), one.order)
        hits, pairs = hits + hit, pairs + count
        yield
    low, high = wilson(hits / pairs, len(training.held_out))
    return {"val_loss": sum(nats) / len(nats), "accuracy": hits / pairs, "low": low, "high": high, "pairs": pairs}


def judged(training: RL, one) -> tuple[Tensor, Tensor]:
    """The loss of a ranking, and the rewards `(K,)` that the policy implies for its completions."""
    kind, beta, reference = training.recipe.loss or "sigmoid", training.recipe.beta, None
    if kind in ("sigmoid", "ipo"):
        with torch.no_grad():
            reference = summed(training.reference, one.rows)
    now = summed(training.policy, one.rows)
    lengths = torch.tensor([len(row.completion) for row in one.rows], device=now.device)
    loss = preference_loss(kind, now, reference, lengths, one.order, beta)
    return loss, implied_rewards(kind, now.detach(), reference, lengths, beta)


def summed(model: Reader, rows: Sequence[PromptCompletion]) -> Tensor:
    """The log-probability `(K,)` of each whole completion."""
    return logprobs(model, rows)[0].sum(dim=1)


def step(training: RL) -> Iterator:
    """One step: see `rl.Algorithm`; yields after each ranking."""
    recipe = training.recipe
    batch = batch_of(training.rankings, training.step + 1, recipe.prompts_per_step, recipe.seed)
    own = [batch[n] for n in training.numbers(len(batch))]
    sums = torch.zeros(2, device=training.device)  # loss and margin
    hits, pairs, tokens = 0, 0, 0
    for number, one in enumerate(own, start=1):
        loss, implied = judged(training, one)
        loss = loss / len(batch)
        training.backward(loss, number == len(own))
        best = list(one.order[0])
        rest = [place for group in one.order[1:] for place in group]
        margin = (implied[best].mean() - implied[rest].mean()) / len(batch)
        sums += torch.stack([loss.detach(), margin])
        hit, count = right(implied.tolist(), one.order)
        hits, pairs, tokens = hits + hit, pairs + count, tokens + one.tokens
        yield
    (loss, margin), hits, pairs, tokens = training.summed(sums, hits, pairs, tokens)
    return int(tokens), {
        "loss": loss,
        "accuracy": hits / pairs,
        "margin": margin,
        **training.update(training.step + 1),
    }
