"""KTO (Ethayarajh et al. 2024): the policy learns from votes, completions that were called good or bad one at a time.

A good completion should imply a reward above a reference point, a bad one below it. That point is the KL of the policy
to the reference, estimated from mismatched pairs: each prompt of the step with the completion of the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from jupyter_gpt.data.prompt_completion import PromptCompletion
from jupyter_gpt.evaluation.metrics import wilson
from jupyter_gpt.nn.logprobs import logprobs
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.nn.preference_loss import kto_kl, kto_loss
from jupyter_gpt.runs.events import Metric, Note
from jupyter_gpt.stages import rl
from jupyter_gpt.stages.loop import batch_of
from jupyter_gpt.stages.rl import RL, Vote
from jupyter_gpt.stages.rollout import logprobs_and_entropy

METRICS = (
    Metric("loss", "training loss", summary=True),
    Metric("val_loss", "validation loss", chart="loss", summary=True),
    Metric("accuracy", "accuracy on votes", format=".1%", interval=("low", "high"), summary=True),
    Metric("margin", "implied reward margin", format=".2f"),
    Metric("kl_estimate", "KL of mismatched pairs", "nats per completion", format=".2f"),
    rl.REWARD,
    rl.KL,
    rl.ENTROPY,
    rl.LENGTH,
    rl.TRUNCATED,
    rl.IDENTICAL,
)
BALANCE = (1.0, 4 / 3)  # of the weighted votes, good to bad: equation 8 of the paper


def imbalance(recipe, votes: Sequence[Vote]) -> Iterator[Note]:
    """A note where the good votes weigh too much or too little beside the bad ones, and what would be right."""
    good = sum(vote.label for vote in votes)
    bad = len(votes) - good
    if not good or not bad:
        yield Note(text=f"all {len(votes)} votes are {'true' if good else 'false'}: KTO learns more from both kinds")
        return
    low, high = BALANCE
    ratio = recipe.desirable_weight * good / (recipe.undesirable_weight * bad)
    if not low - 1e-6 <= ratio <= high + 1e-6:
        right = recipe.desirable_weight * low / ratio, recipe.desirable_weight * high / ratio
        yield Note(
            text=f"{good} votes are true, {bad} false: with --undesirable-weight {recipe.undesirable_weight:g} KTO's "
            f"authors advise a --desirable-weight of {right[0]:.2f} to {right[1]:.2f}"
        )


def mismatched(votes: Sequence[Vote], most: int) -> list[PromptCompletion]:
    """Each vote's prompt with the completion of the vote before it, at most `most` tokens: prompts are cut in front."""
    completions = [vote.row.completion for vote in (votes[-1], *votes[:-1])]
    return [
        PromptCompletion(vote.row.prompt[-max(1, most - len(completion)) :], completion[: most - 1])
        for vote, completion in zip(votes, completions, strict=True)
    ]


def reference_points(training: RL, votes: Sequence[Vote], others: Sequence[Vote], ranks=None) -> Iterator[None]:
    """The KL that separates gains from losses, from mismatched pairs of `others`, and the log-probabilities `(B,)` of
    the votes under the reference; yields between micro-batches."""
    pairs = mismatched(others, context_of(training.reference.module))
    now, _ = yield from logprobs_and_entropy(training.policy, training, pairs, ranks)
    before, _ = yield from logprobs_and_entropy(training.reference, training, pairs, ranks)
    reference, _ = yield from logprobs_and_entropy(training.reference, training, [v.row for v in votes], ranks)
    return kto_kl(now.sum(dim=1) - before.sum(dim=1)), reference.sum(dim=1)


def labels_of(training: RL, votes: Sequence[Vote]) -> Tensor:
    return torch.tensor([vote.label for vote in votes], device=training.device)


def weights_of(training: RL) -> tuple[float, float]:
    return training.recipe.desirable_weight, training.recipe.undesirable_weight


def evaluation(training: RL) -> Iterator[None]:
    """Returns loss and accuracy on held-out votes; yields between micro-batches."""
    votes, beta = training.held_out, training.recipe.beta
    others = votes if len(votes) > 1 else [*votes, training.rankings[0]]  # one alone is not mismatched
    point, reference = yield from reference_points(training, votes, others)
    now, _ = yield from logprobs_and_entropy(training.policy, training, [vote.row for vote in votes])
    ratios, labels = now.sum(dim=1) - reference, labels_of(training, votes)
    loss = kto_loss(ratios, labels, point, beta, *weights_of(training)).mean()
    share = float(accuracy(ratios, labels, point))
    low, high = wilson(share, len(votes))
    return {"val_loss": float(loss), "accuracy": share, "low": low, "high": high, "votes": len(votes)}


def accuracy(ratios: Tensor, labels: Tensor, point: Tensor) -> Tensor:
    """The share of votes on the right side of the reference point, a scalar."""
    return torch.where(labels, ratios > point, ratios < point).float().mean()


def margin(implied: Tensor, labels: Tensor, votes: Sequence[Vote]) -> Tensor | None:
    """The mean implied reward of the good completions less that of the bad; None where there are not both."""
    good = sum(vote.label for vote in votes)
    bad = len(votes) - good
    return torch.where(labels, implied / good, -implied / bad).sum() if good and bad else None


def step(training: RL) -> Iterator:
    """One step: see `rl.Algorithm`."""
    recipe = training.recipe
    votes: list = batch_of(training.rankings, training.step + 1, recipe.prompts_per_step, recipe.seed)
    rows, labels = [vote.row for vote in votes], labels_of(training, votes)
    point, reference = yield from reference_points(training, votes, votes, training.ranks)
    ratios, loss = torch.zeros_like(reference), torch.zeros(1, device=training.device)
    every = training.own_micro_batches(rows)
    for places in every:
        now = logprobs(training.policy, [rows[place] for place in places])[0].sum(dim=1) - reference[places]
        part = kto_loss(now, labels[places], point, recipe.beta, *weights_of(training)).sum() / len(votes)
        training.backward(part, places is every[-1])
        ratios[places] = now.detach()
        loss += part.detach()
        yield
    ratios, ((loss,),) = training.totalled(ratios), training.summed(loss)
    return sum(vote.tokens for vote in votes), {
        "loss": loss,
        "accuracy": accuracy(ratios, labels, point),
        "margin": margin(recipe.beta * ratios, labels, votes),
        "kl_estimate": point,
        **training.update(training.step + 1),
    }
