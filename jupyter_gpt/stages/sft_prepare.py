"""From a finetuning recipe and a base to a `Finetuning` that can take its first step.

A generator of progress events, like the loop itself. It returns the Finetuning with the recipe as it was resolved: the
number format, the learning rate and the length are facts only once the base, the machine and the data are known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import devices as machine
from jupyter_gpt.nn import training_memory as memory
from jupyter_gpt.nn.lora import trained
from jupyter_gpt.nn.lora_linear import unwrapped
from jupyter_gpt.nn.optimizer import finetuning_optimizers
from jupyter_gpt.nn.transformer import recomputable
from jupyter_gpt.runs.events import Event, Progress
from jupyter_gpt.stages.sft_loop import Finetuning, held_out_batches

QUESTIONS = 3  # asked at fixed steps
SHOWN = 160  # characters of a question, of its end


def prepare(
    recipe, folder: Path, model: nn.Module, tokenizer, variables: Mapping | None = None
) -> Iterator[Event | None]:
    """Yields progress events, returns the `Finetuning` at step 0.

    `model` is what is trained, on its device: a full copy, or a peft model. The tokens go to `folder/data`; when they
    are there already (a resumed run) they are used as they are.
    """
    from jupyter_gpt.data.chat import with_template
    from jupyter_gpt.data.conversation_dataset import Conversations
    from jupyter_gpt.data.conversation_dataset import prepare as collect
    from jupyter_gpt.data.conversation_rows import ConversationRows

    tokenizer, device = with_template(tokenizer), model.device.type
    if recipe.checkpointing and not recomputable(model):
        raise GPTError(f"{model.config.model_type} models cannot recompute activations: leave --checkpointing out")
    trained(model)
    given, recipe = recipe.micro_tokens, resolved(recipe, model)
    yield from machine.notes(device, recipe.dtype)
    recipe = yield from with_micro_batch(recipe.replace(micro_tokens=given), recipe.micro_tokens, model)
    parts = {
        "tokenizer": tokenizer,
        "rows": None,
        "held_out": {},
        "questions": [],
        "ends": ends_of(model, tokenizer),
        "flops_per_token": flops(model),
        "peak_flops": machine.peak_flops(device, recipe.dtype),
    }
    if recipe.steps:
        recipe = recipe.with_steps(recipe.steps)
    elif recipe.minutes:
        yield Progress(stage="measuring the speed", unit="steps")
        steps = measured_steps(Finetuning(recipe, model, optimizers=finetuning_optimizers(model, recipe), **parts))
        recipe = recipe.with_steps(steps)
    if (folder / "data" / "conversations.json").exists():
        conversations = Conversations.open(folder / "data")
    else:
        wanted = recipe.steps * recipe.batch_tokens or recipe.tokens
        conversations = yield from collect(
            recipe.mixture,
            tokenizer,
            folder / "data",
            context=recipe.context,
            tokens_wanted=wanted,
            seed=recipe.seed,
            variables=variables,
            cell=recipe.cell,
            train_on=recipe.train_on,
            over_long=recipe.over_long,
            held_out=recipe.held_out,
            bad_rows=recipe.bad_rows,
        )
    parts["rows"] = ConversationRows(conversations, recipe.context, recipe.seed)
    if not recipe.steps:
        rows = yield from parts["rows"].rows_of(inputs(recipe, conversations))
        recipe = recipe.with_tokens(rows * recipe.context)
    parts["held_out"] = held_out_batches(conversations, recipe.context, recipe.eval_tokens)
    parts["questions"] = questions(recipe, conversations, tokenizer, most_tokens(model))
    optimizers = finetuning_optimizers(model, recipe)
    return Finetuning(recipe, model, optimizers=optimizers, conversations=conversations, **parts)


def most_tokens(model: nn.Module) -> int:
    """The longest text that a model takes, a million tokens at most."""
    from jupyter_gpt.nn.modules import context_of

    return min(context_of(model), 1 << 20)


def resolved(recipe, model: nn.Module):
    """The recipe with what follows from the base and from the device it is on."""
    width, device = model.config.get_text_config().hidden_size, model.device.type
    parameters = sum(p.numel() for p in model.parameters())
    return recipe.for_base(width, most_tokens(model), machine.choose_dtype(device, width), parameters, device)


def check_room(recipe, base: nn.Module, rank: int) -> None:
    """Refuse what the memory does not hold before anything is copied: an adapter of `base`, or for rank 0 all its
    weights.
    """
    usual = resolved(recipe, base)
    for _ in with_micro_batch(usual.replace(micro_tokens=recipe.micro_tokens), usual.micro_tokens, base, rank):
        pass


def with_micro_batch(recipe, usual: int, model: nn.Module, rank: int | None = None) -> Iterator[Event]:
    """See `memory.with_micro_batch`. `model` is what is trained, or with `rank` the base, of which an adapter of that
    rank
    will be made, or a copy for 0.
    """

    def step(rank: int | None) -> memory.Step:
        return memory.finetuning(
            model, recipe.dtype, recipe.context, rank=rank, optimizer=recipe.optimizer, whole=recipe.context
        )

    wanted, device = step(rank), str(model.device)
    adapter = step(16) if wanted.trained else None
    return (yield from memory.with_micro_batch(recipe, recipe.base, usual, recipe.context, wanted, device, adapter))


def inputs(recipe, conversations) -> int:
    """How many tokens the run reads."""
    once = int((conversations.lengths() - 1)[~conversations.held_out].sum())  # the last token of each is a target alone
    return recipe.tokens_to_read(once, any(count.endless for count in conversations.counts))


def ends_of(model: nn.Module, tokenizer) -> frozenset[int]:
    """The tokens that end an answer."""
    from jupyter_gpt.data.render import end_of_turn

    return frozenset({tokenizer.eos_token_id, end_of_turn(tokenizer)} - {None})


def questions(recipe, conversations, tokenizer, limit: int) -> list[tuple[str, list[int]]]:
    """The fixed questions: those of the recipe, or how held-out conversations begin (training ones where none is).

    Raises GPTError for a question that leaves no room for an answer.
    """
    import numpy as np

    from jupyter_gpt.data.chat import rendered

    if recipe.questions:
        found = []
        for text in recipe.questions:
            prompt = rendered(tokenizer, [{"role": "user", "content": text}], ask=True)
            ids = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
            if len(ids) >= limit:
                raise GPTError(
                    f"the question {text[:40]!r} has {len(ids):,} tokens, more than the context of {limit:,} holds"
                )
            found.append((text, ids))
        return found
    held = np.flatnonzero(conversations.held_out)
    candidates = held if len(held) else np.arange(len(conversations.source))
    opening = answer_opening(tokenizer)
    found = []
    for c in candidates:
        ids, learned = conversations[int(c)]
        before = ids[: begin_of_answer(ids.tolist(), learned, opening)].tolist()
        if before and len(before) + recipe.answer_tokens <= limit:
            text = tokenizer.decode(before, skip_special_tokens=True).strip()
            found.append((text if len(text) <= SHOWN else "… " + text[-SHOWN:], before))
        if len(found) == QUESTIONS:
            break
    return found


def answer_opening(tokenizer) -> list[int]:
    """The tokens that the template writes to have the assistant speak."""
    from jupyter_gpt.data.chat import rendered

    asked = [{"role": "user", "content": "?"}]
    before, after = rendered(tokenizer, asked), rendered(tokenizer, asked, ask=True)
    return tokenizer(after.removeprefix(before), add_special_tokens=False, verbose=False).input_ids


def begin_of_answer(ids: list[int], learned, opening: list[int]) -> int:
    """Where the first answer begins: at the first token learned, or, where all are, after the tokens that open it."""
    if not learned[0]:
        return int(learned.argmax())
    places = range(1, len(ids) - len(opening) + 1)
    return next((at + len(opening) for at in places if opening and ids[at : at + len(opening)] == opening), 0)


def flops(model: nn.Module) -> float:
    """Training FLOPs per token: 2 a multiplied parameter forward, 2 back to the inputs, 2 to what is trained.

    The tables of embeddings are looked up, not multiplied; the head is, for the tokens that are trained on, and is left
    out: a share of the peak that is stated is reached.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables.add(id(unwrapped(model.get_output_embeddings()).weight))
    matrices = [
        p
        for name, p in model.named_parameters()
        if p.ndim > 1 and id(p) not in tables and ".trainable_tokens_" not in name
    ]
    return sum(p.numel() * (6.0 if p.requires_grad else 4.0) for p in matrices)


def measured_steps(training: Finetuning) -> int:
    """How many steps `recipe.minutes` hold on this machine, by a few real ones on random tokens; nothing is kept of
    them.

    Raises GPTError when they hold not one.
    """
    import numpy as np

    from jupyter_gpt.data.conversation_rows import Batch

    recipe = training.recipe
    rows, T = recipe.batch_tokens // recipe.context, recipe.context
    random = np.random.default_rng(0)
    ids = random.integers(0, training.model.config.get_text_config().vocab_size, (rows, T))
    place = np.tile(np.arange(T), (rows, 1))
    text = max(1, T // 4)
    targets = np.where(place % text > text // 2, ids, -100)
    batch = Batch(ids, targets, place % text, (place // text).astype(np.int32))
    training = replace(training, rows=type("Same", (), {"batch": staticmethod(lambda indices: batch)}))
    weights = [(p, p.detach().clone()) for p in trained(training.model)]
    times = []
    for step in range(1, 4):
        began = time.perf_counter()
        for number in range(training.micro_batches(step)):
            micro = training.micro_batch(step, number)
            (training.loss(micro.inputs) * micro.share).backward()
            if time.perf_counter() - began > 60 * recipe.minutes:
                raise GPTError(f"--minutes {recipe.minutes} is less than one step of this model takes here")
        training.optimizers.step(1.0)
        if training.model.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    with torch.no_grad():
        for parameter, before in weights:
            parameter.copy_(before)
    return max(1, int(60 * recipe.minutes / sorted(times)[1]))
