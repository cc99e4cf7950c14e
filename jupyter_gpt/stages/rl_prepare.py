"""From a recipe, a model to start from and something that rewards to an `RL` that can take its first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from jupyter_gpt.data.prompt_completion import asked, fits, spoken
from jupyter_gpt.nn import devices as machine
from jupyter_gpt.nn import training_memory as memory
from jupyter_gpt.nn.devices import resolved
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.nn.optimizer import adamw_of
from jupyter_gpt.nn.rl_losses import KLController
from jupyter_gpt.runs.events import Event, Progress
from jupyter_gpt.stages.algorithm import Algorithm
from jupyter_gpt.stages.alignment_report import EvaluatedModel
from jupyter_gpt.stages.dpo import Preferred
from jupyter_gpt.stages.policy import critic_of, policy_of
from jupyter_gpt.stages.reward_prepare import held_out_prompts
from jupyter_gpt.stages.rewards import Reward
from jupyter_gpt.stages.rl import RL
from jupyter_gpt.stages.rollout import Asked

FEW = 5  # prompts: with fewer none is held out
WATCHED = 16  # prompts evaluated at most


def prepare(
    recipe,
    name: str,
    start,
    algorithm: Algorithm,
    rewards: Sequence[Reward],
    rankings: Sequence = (),
    stop: frozenset[int] = frozenset(),
    base=None,
    weights: nn.Module | None = None,
) -> Iterator[Event | None]:
    """Yields progress events, returns the `RL` at step 0.

    `start` is a model of the session, `algorithm` what takes a step, `rankings` the `Ranking`s that DPO learns from,
    `stop` the tokens that end an answer; `base` is the first model of its lineage, where that is another one, and
    `name` what the policy is called in the end. `weights` is what policy and critic begin with, where that is not the
    module of `start`: its weights in fp32.
    Raises GPTError for prompts that leave no room for a completion, and where nothing can be held out.
    """
    yield Progress(stage="building the policy", unit="models")
    if start.module.device.type == "cpu":
        machine.keep_freed_memory()
    context = context_of(start.module)
    texts = list(dict.fromkeys(recipe.prompts or [ranking.prompt for ranking in rankings]))
    prompts = [Asked(text, asked(start.name, start.tokenizer, text)) for text in texts]
    fits(start.name, [one.ids for one in prompts], texts, context, recipe.max_tokens)
    learned, watched = split(prompts, recipe.held_out, recipe.seed)
    train, held_out = [], []
    if recipe.algo == "dpo":
        train, held_out = preferred(recipe, start, rankings, context)
        learned = prompts
    yield None
    dtype = resolved(recipe.dtype, start.module)
    recipe, low = recipe.replace(prompts=texts, dtype=dtype), getattr(torch, dtype)
    weights = start.module if weights is None else weights
    yield from machine.notes(weights.device.type, dtype)
    critic = getattr(algorithm, "CRITIC", False)
    recipe = yield from with_micro_batch(recipe, critic, start.name, weights, prompts, [*train, *held_out])
    policy = policy_of(weights, recipe.lora, recipe.seed)
    modules = {"policy": policy}
    if critic:
        modules["critic"] = critic_of(weights, recipe.lora, start.tokenizer.pad_token_id, recipe.seed + 1)
    optimizers = adamw_of(modules, {"policy": recipe.lr, "critic": recipe.value_lr})
    lineage = [
        EvaluatedModel(start.name, "start", start.module, start.tokenizer, watched, stop),
        EvaluatedModel(name, "aligned", policy, start.tokenizer, watched, stop),
    ]
    if base is not None:
        sent = [Asked(one.text, asked(base.name, base.tokenizer, one.text)) for one in watched]
        lineage.insert(0, EvaluatedModel(base.name, "base", base.module, base.tokenizer, sent, stop))
    return RL(
        recipe=recipe,
        policy=Reader(policy, low, bool(recipe.checkpointing)),
        reference=Reader(start.module, low),
        tokenizer=start.tokenizer,
        optimizers=optimizers,
        prompts=learned,
        watched=watched,
        rewards=list(rewards),
        stop=stop,
        controller=KLController(recipe.kl, recipe.kl_target),
        algorithm=algorithm,
        critic=Reader(modules["critic"], low, bool(recipe.checkpointing)) if critic else None,
        rankings=train,
        held_out=held_out,
        lineage=lineage,
    )


def with_micro_batch(
    recipe, critic: bool, name: str, weights: nn.Module, prompts: Sequence[Asked], rankings: Sequence[Preferred]
) -> Iterator[Event]:
    """See `memory.with_micro_batch`. DPO reads all completions of a ranking at once; a critic is trained beside the
    policy, and several updates on one batch keep what there was before the first.
    """
    together = [one.tokens for one in rankings] or [len(one.ids) + recipe.max_tokens for one in prompts]
    longest = max(len(row.ids) for one in rankings for row in one.rows) if rankings else max(together)
    step, adapter = (
        memory.finetuning(
            weights,
            recipe.dtype,
            longest,
            rank=rank,
            whole=max(together),
            models=2 if critic else 1,
            remembered=critic or recipe.epochs > 1,
        )
        for rank in (recipe.lora, 16)
    )
    usual = (
        16384 if weights.device.type == "cuda" else 512 if recipe.dtype == "float32" else 2048
    )  # bf16 casts weights anew
    least, device = max(together), str(weights.device)
    return (
        yield from memory.with_micro_batch(recipe, name, usual, least, step, device, None if recipe.lora else adapter)
    )


def split(prompts: list[Asked], share: float, seed: int) -> tuple[list[Asked], list[Asked]]:
    """Prompts to train on and prompts to watch: the same where they are few."""
    if len(prompts) < FEW or not share:
        return prompts, prompts[:WATCHED]
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
    held = set(order[: max(1, round(share * len(prompts)))])
    kept = [one for n, one in enumerate(prompts) if n not in held]
    return kept, [one for n, one in enumerate(prompts) if n in held][:WATCHED]


def preferred(recipe, start, rankings: Sequence, context: int) -> tuple[list[Preferred], list[Preferred]]:
    """Rankings to learn from and rankings held out, those of one prompt on the same side."""
    telling = [ranking for ranking in rankings if ranking.pairs]
    held = held_out_prompts([ranking.prompt for ranking in telling], recipe.held_out or 0.1, recipe.seed)
    train, held_out = [], []
    for ranking in telling:
        rows = tuple(
            spoken(start.name, start.tokenizer, ranking.prompt, each["text"], context, finished)[0]
            for each, finished in zip(ranking.completions, ranking.finished, strict=True)
        )
        (held_out if ranking.prompt in held else train).append(Preferred(rows, ranking.order))
    return train, held_out
