"""What a run of reinforcement learning begins with: the prompts and rankings as ids, and the models on one base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from jupyter_gpt.data.prompt_completion import check_prompt_lengths, encode_pair, prompt_ids
from jupyter_gpt.data.render import Question
from jupyter_gpt.nn import devices, training_memory
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.nn.optimizer import adamw_of
from jupyter_gpt.nn.rl_losses import KLController
from jupyter_gpt.runs.events import Event, Note, Progress
from jupyter_gpt.stages.alignment_report import EvaluatedModel
from jupyter_gpt.stages.kto import imbalance
from jupyter_gpt.stages.policy import critic_of, policy_of
from jupyter_gpt.stages.reward import held_out_prompts
from jupyter_gpt.stages.rl import RL, Algorithm, Preferred, Vote
from jupyter_gpt.stages.rl_rows import question_of, votes_of_rankings
from jupyter_gpt.stages.rollout import Prompt, Reward

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
    weights: Any = None,
    sampler: Any = None,
) -> Iterator[Event | None]:
    """Yields progress events, returns the `RL` at step 0.

    `start` is a model of the session, `algorithm` what takes a step, `rankings` the `Ranking`s that DPO learns from,
    `stop` the tokens that end a completion; `base` is the first model of its lineage, if that is another one, and
    `name` that of the trained policy. `weights` is the module that policy and critic start from, and the reference, if
    that is not the module of `start`: its weights in fp32. `sampler` samples the completions that are trained on, if it
    is given. Raises GPTError for prompts that leave no room for a completion, and if nothing can be held out.
    """
    yield Progress(stage="building the policy", unit="models")
    if start.module.device.type == "cpu":
        devices.keep_freed_memory()
    context, tokenizer = context_of(start.module), start.tokenizer
    texts = list(dict.fromkeys(recipe.prompts or [ranking.prompt for ranking in rankings]))
    messages = {ranking.prompt: ranking.messages for ranking in rankings}
    asked = {text: question_of(recipe, text, messages.get(text, ())) for text in texts}
    prompts = [Prompt(text, prompt_ids(start.name, tokenizer, asked[text])) for text in texts]
    if recipe.algo == "dpo" and not recipe.prompts:  # which trains on what there is, and samples to evaluate only
        short = [each for each in prompts if len(each.ids) + recipe.max_tokens <= context]
        if 0 < len(short) < len(prompts):
            yield Note(
                text=f"{len(prompts) - len(short):,} of {len(prompts):,} prompts leave no room for --max-tokens "
                f"{recipe.max_tokens:,} in the context of {start.name} ({context:,}): none of them is sampled, and a "
                "prompt longer than the context is truncated at its beginning"
            )
            prompts, texts = short, [each.text for each in short]
    check_prompt_lengths(start.name, [each.ids for each in prompts], texts, context, recipe.max_tokens)
    learned, watched = split(prompts, recipe.held_out, recipe.seed)
    train, held_out, known = [], [], set()
    if recipe.loss == "kto":
        train, held_out, known = voted(recipe, start, rankings, context)
        yield from imbalance(recipe, [*train, *held_out])
    elif recipe.algo == "dpo":
        train, held_out, known = preferred(recipe, start, rankings, context)
    if recipe.algo == "dpo":
        learned, watched = prompts, unknown(prompts, watched, known) if recipe.held_out else watched
    yield None
    dtype = devices.resolved(recipe.dtype, start.module)
    recipe, low = recipe.replace(prompts=texts, dtype=dtype), getattr(torch, dtype)
    weights = start.module if weights is None else weights
    device = weights.device.type
    yield from devices.notes(device, dtype)
    critic = getattr(algorithm, "CRITIC", False)
    ranked = [*train, *held_out]  # DPO reads all completions of a ranking at once
    together = max([each.tokens for each in ranked] or [len(each.ids) + recipe.max_tokens for each in prompts])
    if recipe.loss == "kto":  # which reads completions after other prompts too
        rows = [row for each in ranked for row in each.rows]
        longest = max(len(row.prompt) for row in rows) + max(len(row.completion) for row in rows)
        together = min(context, longest)
    recipe = yield from training_memory.with_micro_batch(
        recipe,
        start.name,
        weights,
        16384 if device == "cuda" else 512 if dtype == "float32" else 2048,  # bf16 casts the weights for each
        text=max((len(row.ids) for each in ranked for row in each.rows), default=together),
        least=together,
        rank=recipe.lora,
        models=2 if critic else 1,
        remembered=critic or recipe.epochs > 1,
    )
    policy = policy_of(weights, recipe.lora, recipe.seed)
    modules = {"policy": policy}
    if critic:
        modules["critic"] = critic_of(weights, recipe.lora, tokenizer.pad_token_id, recipe.seed + 1)
    lineage = [
        EvaluatedModel(start.name, "start", start.module, tokenizer, watched, stop),
        EvaluatedModel(name, "aligned", policy, tokenizer, watched, stop),
    ]
    questions = [asked[each.text] for each in watched]
    if base is not None and (getattr(base.tokenizer, "chat_template", None) or all(map(is_text, questions))):
        own = [
            Prompt(each.text, prompt_ids(base.name, base.tokenizer, question))
            for each, question in zip(watched, questions, strict=True)
        ]
        lineage.insert(0, EvaluatedModel(base.name, "base", base.module, base.tokenizer, own, stop))
    return RL(
        recipe=recipe,
        model=policy,
        policy=Reader(policy, low, bool(recipe.checkpointing)),
        reference=Reader(start.module if start.dtype == dtype else weights, low),  # one and the same, rounded
        critic=Reader(modules["critic"], low, bool(recipe.checkpointing)) if critic else None,
        tokenizer=tokenizer,
        optimizers=adamw_of(modules, {"policy": recipe.lr, "critic": recipe.value_lr}),
        prompts=learned,
        watched=watched,
        rewards=list(rewards),
        stop=stop,
        controller=KLController(recipe.kl, recipe.kl_target),
        algorithm=algorithm,
        sampler=sampler,
        rankings=train,
        held_out=held_out,
        lineage=lineage,
    )


def is_text(question: Question) -> bool:
    """Whether a base model can be asked it: without turns and system prompt."""
    return isinstance(question.asked, str) and question.system is None


def split(prompts: list[Prompt], share: float, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to train on and prompts to evaluate on: the same if there are few."""
    if len(prompts) < FEW or not share:
        return prompts, prompts[:WATCHED]
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = set(order[: max(1, round(share * len(prompts)))])
    train = [prompt for n, prompt in enumerate(prompts) if n not in held_out]
    return train, [prompt for n, prompt in enumerate(prompts) if n in held_out][:WATCHED]


def unknown(prompts: list[Prompt], watched: list[Prompt], known: set[str]) -> list[Prompt]:
    """The prompts to evaluate on: others, where rankings of these are trained on and there are others."""
    others = [prompt for prompt in prompts if prompt.text not in known]
    leak = len(prompts) >= FEW and any(prompt.text in known for prompt in watched)
    return others[:WATCHED] if leak and others else watched


def preferred(recipe, start, rankings: Sequence, context: int) -> tuple[list[Preferred], list[Preferred], set[str]]:
    """Rankings to train on and rankings held out, those of one prompt on the same side; the prompts of the first."""
    ordered = [ranking for ranking in rankings if ranking.pairs]
    held_out_of = held_out_prompts([ranking.prompt for ranking in ordered], recipe.held_out or 0.1, recipe.seed)
    train, held_out = [], []
    for ranking in ordered:
        asked = question_of(recipe, ranking.prompt, ranking.messages)
        rows = tuple(
            encode_pair(start.name, start.tokenizer, asked, each["text"], context, *how)[0]
            for each, *how in zip(ranking.completions, ranking.finished, ranking.sampled, strict=True)
        )
        (held_out if ranking.prompt in held_out_of else train).append(Preferred(rows, ranking.order))
    return train, held_out, {ranking.prompt for ranking in ordered} - held_out_of


def voted(recipe, start, rankings: Sequence, context: int) -> tuple[list[Vote], list[Vote], set[str]]:
    """Votes to train on and votes held out, those of one prompt on the same side; the prompts of the first."""
    votes = recipe.votes or votes_of_rankings(rankings)
    held_out_of = held_out_prompts([vote["prompt"] for vote in votes], recipe.held_out or 0.1, recipe.seed)
    train, held_out = [], []
    for vote in votes:
        asked = question_of(recipe, vote["prompt"], vote.get("messages", ()))
        how = vote.get("finished", True), vote.get("sampled", False)
        row, _ = encode_pair(start.name, start.tokenizer, asked, vote["completion"], context, *how)
        (held_out if vote["prompt"] in held_out_of else train).append(Vote(row, vote["label"]))
    return train, held_out, {vote["prompt"] for vote in votes} - held_out_of
