"""Supervised finetuning: next-token prediction on conversations, the loss on the assistant's tokens only.

A step reads whole rows of packed conversations. They go through the model as streams in which no conversation sees
another (`nn/varlen.py`), the head and its cross-entropy only over the tokens that are trained on. At fixed steps the
model is asked the same questions, which shows completions turning into replies.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jupyter_gpt.data.chat import rendered, with_template
from jupyter_gpt.data.conversation_dataset import Conversations
from jupyter_gpt.data.conversation_dataset import prepare as collect
from jupyter_gpt.data.conversation_rows import IGNORE, Batch, ConversationRows, held_out_rows, laid_out
from jupyter_gpt.data.render import end_of_turn
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.nn import devices, training_memory
from jupyter_gpt.nn.modules import context_of, eval_mode
from jupyter_gpt.nn.optimizer import finetuning_optimizers
from jupyter_gpt.nn.output_head import OutputHead, output_head
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.nn.varlen import Stream, stream, streams
from jupyter_gpt.runs.events import Evaluation, Event, Progress, Sample
from jupyter_gpt.stages.loop import LEARNING_RATE, SPEED, Micro, Trainer, losses
from jupyter_gpt.stages.speed import steps_in, training_flops
from jupyter_gpt.stages.stage import LOGITS

EVALUATED = 4096  # tokens evaluated at once: enough for the products to be large, soon enough for a stop
QUESTIONS, SHOWN = 3, 160  # questions asked at fixed steps, and the characters of each that are shown, from its end


def fitted(recipe, model: Any, rank: int | None = None) -> Iterator[Event]:
    """The recipe with what follows from the base, its device and the free memory. `model` is what is trained, or with
    `rank` the base, of which an adapter of that rank will be made, or a copy for 0.
    """
    width, device = model.config.get_text_config().hidden_size, model.device.type
    recipe = recipe.for_base(width, longest(model), devices.choose_dtype(device, width))
    parameters = sum(p.numel() for p in model.parameters())
    logits = LOGITS // model.config.get_text_config().vocab_size if recipe.loss else 32768
    usual = 32768 if device == "cuda" else max(512, min(8192, int(1e11 / parameters)))
    yield from devices.notes(device, recipe.dtype)
    return (
        yield from training_memory.with_micro_batch(
            recipe, recipe.base, model, min(usual, logits), text=recipe.context, rank=rank, optimizer=recipe.optimizer
        )
    )


def longest(model: Any) -> int:
    """The longest text that a model reads, a million tokens at most."""
    return min(context_of(model), 1 << 20)


def prepare(recipe, folder: Path, model: Any, tokenizer, variables: Mapping | None = None) -> Iterator[Event | None]:
    """Yields progress events, returns the `Supervised` at step 0.

    `model` is what is trained, on its device: a full copy, or a peft model; `recipe` is `fitted` to it. The tokens go
    to `folder/data`; those of a resumed run are there already, and used as they are.
    """
    tokenizer = with_template(tokenizer)

    def training(recipe, rows, **more) -> Supervised:
        return Supervised(
            recipe=recipe,
            model=model,
            tokenizer=tokenizer,
            optimizers=finetuning_optimizers(model, recipe),
            rows=rows,
            ends=frozenset({tokenizer.eos_token_id, end_of_turn(tokenizer)} - {None}),
            flops_per_token=training_flops(model),
            peak_flops=devices.peak_flops(model.device.type, recipe.dtype),
            **more,
        )

    if recipe.minutes and not recipe.steps:
        yield Progress(stage="measuring the speed", unit="steps")
        recipe = recipe.replace(steps=steps_in(recipe.minutes, training(recipe, random_rows(recipe, model))))
    if recipe.steps:
        recipe = recipe.with_steps(recipe.steps)
    if (folder / "data" / "conversations.json").exists():
        conversations = Conversations.open(folder / "data")
    else:
        conversations = yield from collect(
            recipe.mixture,
            tokenizer,
            folder / "data",
            context=recipe.context,
            tokens_wanted=recipe.steps * recipe.batch_tokens or recipe.tokens,
            seed=recipe.seed,
            variables=variables,
            cell=recipe.cell,
            train_on=recipe.train_on,
            over_long=recipe.over_long,
            held_out=recipe.held_out,
            bad_rows=recipe.bad_rows,
        )
    rows = ConversationRows(conversations, recipe.context, recipe.seed)
    if not recipe.steps:
        once = int((conversations.lengths() - 1)[~conversations.held_out].sum())  # the last token is a target only
        tokens = recipe.tokens_to_read(once, any(count.endless for count in conversations.counts))
        recipe = recipe.with_tokens((yield from rows.rows_of(tokens)) * recipe.context)
    held_out = held_out_batches(conversations, recipe.context, recipe.eval_tokens)
    questions = fixed_questions(recipe, conversations, tokenizer, longest(model))
    return training(recipe, rows, held_out=held_out, questions=questions)


def random_rows(recipe, model: Any) -> Any:
    """Rows of random tokens, four texts a row and every other token trained on: what speed is measured with."""
    T = recipe.context
    ids = np.random.default_rng(0).integers(0, model.config.get_text_config().vocab_size, (recipe.batch_tokens // T, T))
    place, text = np.broadcast_to(np.arange(T), ids.shape), max(1, T // 4)
    targets = np.where(place % text > text // 2, ids, IGNORE)
    batch = Batch(ids, targets, place % text, (place // text).astype(np.int32))
    return SimpleNamespace(batch=lambda indices: batch)


def held_out_batches(conversations, context: int, tokens: int) -> dict[str, tuple[float, list]]:
    """Each source's share and its held-out conversations as batches of rows, at most about `tokens` in total."""
    batches = {}
    for source, (share, rows) in held_out_rows(conversations, context).items():
        wanted = max(1, min(len(rows), round(share * tokens / context)))
        spread = [rows[n] for n in np.linspace(0, len(rows) - 1, wanted).round().astype(int)]
        together = max(1, EVALUATED // context)
        pieces = [spread[n : n + together] for n in range(0, wanted, together)]
        batches[source] = (share, [laid_out(conversations, piece, context) for piece in pieces])
    return batches


def fixed_questions(recipe, conversations, tokenizer, limit: int) -> list[tuple[str, list[int]]]:
    """The questions asked at fixed steps: those of the recipe, or held-out conversations up to the first answer (of the
    training ones if none is held out).

    Raises GPTError for a question that leaves no room for an answer.
    """

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def ask(text: str) -> str:
        return rendered(tokenizer, [{"role": "user", "content": text}], ask=True)

    if recipe.questions:
        questions = [(text, encode(ask(text))) for text in recipe.questions]
        if over := next((each for each in questions if len(each[1]) >= limit), None):
            raise GPTError(
                f"the question {over[0][:40]!r} has {len(over[1]):,} tokens, more than the context of {limit:,} holds"
            )
        return questions
    opening = encode(ask("?").removeprefix(rendered(tokenizer, [{"role": "user", "content": "?"}])))
    held_out, questions = np.flatnonzero(conversations.held_out), []
    for c in held_out if len(held_out) else range(len(conversations)):
        ids, trained = conversations[int(c)]
        before = ids[: begin_of_answer(ids.tolist(), trained, opening)].tolist()
        if before and len(before) + recipe.answer_tokens <= limit:
            text = tokenizer.decode(before, skip_special_tokens=True).strip()
            questions.append((text if len(text) <= SHOWN else "… " + text[-SHOWN:], before))
        if len(questions) == QUESTIONS:
            break
    return questions


def begin_of_answer(ids: list[int], trained, opening: list[int]) -> int:
    """Where the first answer begins: at the first trained token, or, if all are trained, after the tokens with which
    the template opens the assistant's turn.
    """
    if not trained[0]:
        return int(trained.argmax())
    places = range(1, len(ids) - len(opening) + 1)
    return next((at + len(opening) for at in places if opening and ids[at : at + len(opening)] == opening), 0)


@dataclass(kw_only=True, eq=False)
class Supervised(Trainer):
    """A finetuning run between two steps.

    `model` is a causal LM, or a peft model of one. `rows` serves packed rows by index; `held_out` maps each source to
    its share and its validation batches; `questions` are (text, ids up to where the answer begins); `ends` are the
    tokens that end an answer.
    """

    rows: Any
    ends: frozenset[int]
    questions: list[tuple[str, list[int]]] = field(default_factory=list)
    trunk: Trunk = field(init=False, repr=False)
    head: OutputHead = field(init=False, repr=False)
    laid: tuple[int, list[Stream]] = field(default=(0, []), repr=False)
    drops: bool = False  # whether the adapter has dropout
    metrics = (*losses("token"), LEARNING_RATE, SPEED)

    def __post_init__(self):
        recipe = self.recipe
        for name, part in self.model.named_modules():
            part.training = "lora_dropout" in name and getattr(part, "p", 0) > 0
            self.drops |= part.training
        self.trunk = Trunk(self.model, recipe.context, getattr(torch, recipe.dtype), bool(recipe.checkpointing))
        self.head = output_head(self.trunk)

    @property
    def about(self) -> str:
        recipe = self.recipe
        if recipe.continues:
            how = f"a copy of the adapter {recipe.adapter} of {recipe.base}"
        elif recipe.lora:
            how = f"an adapter of rank {recipe.lora} on {recipe.base}" + (", DoRA" if recipe.dora else "")
            if tokens := recipe.trainable_tokens:
                how += f", with rows for {', '.join(tokens)}"
        else:
            how = f"all of {recipe.adapter or recipe.base}"
        where = "the assistant's tokens" if recipe.train_on == "assistant" else "all tokens"
        return f"{how}, loss on {where}, {recipe.optimizer}, {recipe.batch_tokens:,} tokens per step"

    @property
    def facts(self) -> dict:
        return {"checkpointing": bool(self.recipe.checkpointing)}

    def sharded_trunk(self) -> Trunk:
        return self.trunk

    def streams(self, step: int) -> list[Stream]:
        """The packed rows of a step in micro-batches: a function of the step alone."""
        if self.laid[0] != step:
            rows, device = self.recipe.batch_tokens // self.recipe.context, self.device
            batch = self.rows.batch(range((step - 1) * rows, step * rows))
            pieces = streams(batch, device, self.at_once(batch.ids.size), padded=device.type == "cuda")
            self.laid = step, [piece for piece in pieces if len(piece.targets)]
        return self.laid[1]

    def micro_batches(self, step: int) -> int:
        return len(self.streams(step))

    def micro_batch(self, step: int, number: int) -> Micro:
        """Its share of the loss is its share of the trained tokens: each token of a step counts the same."""
        pieces = self.streams(step)
        piece, every = pieces[number], sum(len(p.targets) for p in pieces)
        seed = hash((self.recipe.seed, step, number)) if self.drops else None  # dropout is a function of the place too
        return Micro((piece, seed), len(piece.targets) / every, piece.tokens - piece.padding)

    def loss(self, inputs: tuple[Stream, int | None]) -> Tensor:
        """Mean nats over the trained tokens of a stream; the second is the seed of LoRA's dropout."""
        piece, seed = inputs
        with nullcontext() if seed is None else devices.seeded(seed, self.device):
            if self.own_loss is not None:
                return self.loss_of_logits(self.head.logits(self.hidden(piece)), piece.targets)
            return self.nats(piece)

    def hidden(self, piece: Stream) -> Tensor:
        """The hidden states before the trained tokens of a stream."""
        return self.trunk(piece.ids, piece.segments)[0].index_select(0, piece.trained)

    def nats(self, piece: Stream) -> Tensor:
        """Mean nats over the trained tokens of a stream."""
        return self.head.cross_entropy(self.hidden(piece), piece.targets)

    def evaluate(self) -> Iterator[Event | None]:
        """Validation loss in nats per trained token; each source counts by its share of the mixture."""
        began, mixed, by_source = time.perf_counter(), 0.0, {}
        for source, (share, batches) in self.held_out.items():
            nats, count = 0.0, 0
            for batch in batches:
                piece = stream(batch, self.device)
                with torch.no_grad(), eval_mode(self.model):
                    nats += float(self.reads(partial(self.nats, piece))) * len(piece.targets)
                count += len(piece.targets)
                yield None
            by_source[source] = nats / count
            mixed += share * nats / count
        values = {"val_loss": mixed / sum(share for share, _ in self.held_out.values())}
        seconds = time.perf_counter() - began
        yield Evaluation(step=self.step, values=values, seconds=seconds, facts={"by_source": by_source})

    def samples(self) -> Iterator[Event | None]:
        """The answers to the fixed questions, by greedy decoding."""
        requests = [
            Request(tuple(ids), max_tokens=self.recipe.answer_tokens, temperature=0.0, stop_ids=self.ends)
            for _, ids in self.questions
        ]
        answers: list[list[int]] = [[] for _ in requests]
        with self.whole() as model:
            if model is None:
                return
            for token in generate(model, requests):
                if token is not None and not (token.finish == "stop" and token.id in self.ends):
                    answers[token.request].append(token.id)
                yield None
        for (text, _), ids in zip(self.questions, answers, strict=True):
            answer = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            yield Sample(step=self.step, prompt=text, text=answer)
