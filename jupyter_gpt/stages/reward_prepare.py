"""From a base and rankings to a reward model that can take its first step."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.scoring import row_of
from jupyter_gpt.nn import devices as machine
from jupyter_gpt.nn import training_memory as memory
from jupyter_gpt.nn.devices import resolved
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.nn.optimizer import adamw_of
from jupyter_gpt.runs.events import Event, Progress
from jupyter_gpt.stages.policy import scorer_of
from jupyter_gpt.stages.reward_loop import Ranked, RewardTraining

TRAINED = (2048, 16384)  # tokens trained on in one pass on a CPU and on a GPU, where the memory holds them


def prepare(recipe, base, rankings: Sequence, weights: nn.Module | None = None) -> Iterator[Event | None]:
    """Yields progress events, returns the `RewardTraining` at step 0.

    `base` is a model of the session, `rankings` its `Ranking`s; `weights` is what the reward model begins with, where
    that is not the module of `base`: its weights in fp32. Raises GPTError when nothing can be held out.
    """
    yield Progress(stage="reading the rankings", total=len(rankings), unit="rankings")
    tokenizer = copy.deepcopy(base.tokenizer)
    most = min(recipe.max_tokens or 1 << 30, context_of(base.module))
    ranked, cut = [], 0
    for number, ranking in enumerate(rankings):
        if ranking.pairs:
            texts = tuple(each["text"] for each in ranking.completions)
            rows = [
                row_of(base.name, tokenizer, ranking.prompt, text, most, finished)
                for text, finished in zip(texts, ranking.finished, strict=True)
            ]
            cut += any(shortened for _, shortened in rows)
            ranked.append(Ranked(ranking.prompt, texts, tuple(row for row, _ in rows), ranking.order))
        if number % 100 == 99:
            yield Progress(stage="reading the rankings", done=number + 1, total=len(rankings), unit="rankings")
    train, held_out = split(ranked, recipe.held_out, recipe.seed)
    steps = recipe.steps or max(1, math.ceil(recipe.epochs * len(train) / recipe.batch))
    recipe = recipe.replace(
        steps=steps,
        eval_every=recipe.eval_every or max(1, steps // 8),
        max_tokens=most,
        dtype=resolved(recipe.dtype, base.module),
    )
    weights = base.module if weights is None else weights
    device, most_together = str(weights.device), max(each.tokens for each in train)
    yield from machine.notes(weights.device.type, recipe.dtype)
    longest = max(len(row) for each in train for row in each.rows)
    step, adapter = (
        memory.finetuning(weights, recipe.dtype, longest, rank=rank, logits=False, whole=most_together)
        for rank in (recipe.lora, 16)
    )
    recipe = yield from memory.with_micro_batch(
        recipe,
        base.name,
        TRAINED[weights.device.type == "cuda"],
        most_together,
        step,
        device,
        None if recipe.lora else adapter,
    )
    model = scorer_of(weights, recipe.lora, tokenizer.pad_token_id, recipe.seed)
    optimizers = adamw_of({"reward": model}, {"reward": recipe.lr})
    reader = Reader(model, getattr(torch, recipe.dtype), bool(recipe.checkpointing))
    return RewardTraining(recipe, model, tokenizer, optimizers, train, held_out, cut, reader)


def split(ranked: list[Ranked], share: float, seed: int) -> tuple[list[Ranked], list[Ranked]]:
    """Rankings to learn from and rankings held out, those of one prompt on the same side. Raises GPTError as
    `held_out_prompts`.
    """
    held = held_out_prompts([each.prompt for each in ranked], share, seed)
    return [r for r in ranked if r.prompt not in held], [r for r in ranked if r.prompt in held]


def held_out_prompts(prompts: Sequence[str], share: float, seed: int) -> set[str]:
    """The prompts to hold out: that share of the different ones, one at least and never all, drawn from the seed.

    Raises GPTError when all rankings are of one prompt.
    """
    different = list(dict.fromkeys(prompts))
    if len(different) < 2:
        raise GPTError("all rankings are of one prompt, and some must be held out: rank completions of another one too")
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(seed)).tolist()
    return {different[place] for place in order[: min(max(1, round(share * len(different))), len(order) - 1)]}
