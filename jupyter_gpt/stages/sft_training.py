"""Supervised finetuning: next-token prediction on conversations, the loss on the assistant's tokens alone.

Whole rows of packed conversations are a step; they go through the model as streams in which no conversation sees
another (`varlen.py`), the head and its cross-entropy only over the tokens that are trained on. At fixed steps the
model is asked the same questions, so that the answer is seen turning from completion to reply.

From a finetuning recipe and a base to a `Finetuning` that can take its first step.

A generator of progress events, like the loop itself. It returns the Finetuning with the recipe as it was resolved: the
number format, the learning rate and the length are facts only once the base, the machine and the data are known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import devices as machine
from jupyter_gpt.nn import training_memory as memory
from jupyter_gpt.nn.devices import seeded
from jupyter_gpt.nn.lora_linear import unwrapped
from jupyter_gpt.nn.modules import trained
from jupyter_gpt.nn.optimizer import Optimizers, finetuning_optimizers
from jupyter_gpt.nn.output_head import OutputHead, output_head
from jupyter_gpt.nn.transformer import Trunk, recomputable
from jupyter_gpt.nn.varlen import Stream, stream, streams
from jupyter_gpt.runs.events import Evaluation, Event, Progress, Sample
from jupyter_gpt.stages.loop import METRICS, Micro, Trainer

EVALUATED = 4096  # cells evaluated at once: enough for the products to be large, soon enough for a stop


@dataclass
class Finetuning(Trainer):
    """Everything a finetuning run consists of between two steps.

    `model` is a causal LM, or a peft model of one; what requires a gradient is trained, and is all that a checkpoint
    holds. `rows` serves packed rows by index; `held_out` maps each source to its share and its validation batches;
    `questions` are (text, ids up to where the answer begins); `ends` are the tokens that end an answer.
    """

    recipe: Any
    model: nn.Module
    tokenizer: Any
    optimizers: Optimizers
    rows: Any
    held_out: dict[str, tuple[float, list]]
    questions: list[tuple[str, list[int]]]
    ends: frozenset[int]
    flops_per_token: float
    peak_flops: float | None
    conversations: object = None
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    trunk: Trunk = field(init=False, repr=False)
    head: OutputHead = field(init=False, repr=False)
    laid: tuple[int, list[Stream]] = field(default=(0, []), repr=False)
    drops: bool = False  # whether the adapter drops some of its inputs
    metrics = tuple(metric for metric in METRICS if metric.name != "bits_per_byte")

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
        if recipe.adapter and not recipe.merge_first:
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

    def streams(self, step: int) -> list[Stream]:
        """The packed rows of a step, in pieces small enough to go through the model: a function of the step alone."""
        if self.laid[0] != step:
            rows = self.recipe.batch_tokens // self.recipe.context
            batch = self.rows.batch(range((step - 1) * rows, step * rows))
            device = self.device
            pieces = streams(batch, device, self.recipe.micro_tokens, padded=device.type == "cuda")
            self.laid = step, [piece for piece in pieces if len(piece.targets)]
        return self.laid[1]

    def micro_batches(self, step: int) -> int:
        return len(self.streams(step))

    def micro_batch(self, step: int, number: int) -> Micro:
        """Its share of the loss is its share of the trained tokens: each token of a step counts the same."""
        pieces = self.streams(step)
        piece = pieces[number]
        # what is dropped is a function of the place in the run too
        seed = hash((self.recipe.seed, step, number)) if self.drops else None
        return Micro(
            (piece, seed), len(piece.targets) / sum(len(p.targets) for p in pieces), piece.tokens - piece.padding
        )

    def loss(self, inputs: tuple[Stream, int | None]) -> Tensor:
        """Mean nats over the trained tokens of a stream; the second is the seed of what LoRA's dropout drops."""
        piece, seed = inputs
        if seed is None:
            return self.nats(piece)
        with seeded(seed, self.device):
            return self.nats(piece)

    def nats(self, piece: Stream) -> Tensor:
        """Mean nats over the trained tokens of a stream."""
        hidden = self.trunk(piece.ids, piece.segments)[0].index_select(0, piece.trained)
        return self.head.cross_entropy(hidden, piece.targets)

    def evaluate(self) -> Iterator[Event | None]:
        """Validation loss in nats per trained token; each source counts by its share of the mixture."""
        from jupyter_gpt.nn.modules import eval_mode

        began, mixed, by_source = time.perf_counter(), 0.0, {}
        for source, (share, batches) in self.held_out.items():
            nats, count = 0.0, 0
            for batch in batches:
                piece = stream(batch, self.device)
                with torch.no_grad(), eval_mode(self.model):
                    nats += float(self.nats(piece)) * len(piece.targets)
                count += len(piece.targets)
                yield None
            by_source[source] = nats / count
            mixed += share * nats / count
        shares = sum(share for share, _ in self.held_out.values())
        yield Evaluation(
            step=self.step,
            values={"val_loss": mixed / shares},
            seconds=time.perf_counter() - began,
            facts={"by_source": by_source},
        )

    def samples(self) -> Iterator[Event | None]:
        """The answer to each of the fixed questions, the likeliest token each time, as the model stands."""
        from jupyter_gpt.inference.engine import generate
        from jupyter_gpt.inference.sampling import Request

        asked = [
            Request(tuple(ids), max_tokens=self.recipe.answer_tokens, temperature=0.0, stop_ids=self.ends)
            for _, ids in self.questions
        ]
        said: list[list[int]] = [[] for _ in asked]
        for token in generate(self.model, asked):
            if token is not None and not (token.finish == "stop" and token.id in self.ends):
                said[token.request].append(token.id)
            yield None
        for (text, _), ids in zip(self.questions, said, strict=True):
            answer = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            yield Sample(step=self.step, prompt=text, text=answer)


def held_out_batches(conversations, context: int, tokens: int) -> dict[str, tuple[float, list]]:
    """Each source's share and its held-out conversations as batches of rows, at most about `tokens` in all."""
    from jupyter_gpt.data.conversation_rows import held_out_rows, laid_out

    found = {}
    for source, (share, rows) in held_out_rows(conversations, context).items():
        wanted = max(1, min(len(rows), round(share * tokens / context)))
        spread = [rows[n] for n in np.linspace(0, len(rows) - 1, wanted).round().astype(int)]
        together = max(1, EVALUATED // context)
        pieces = [spread[n : n + together] for n in range(0, wanted, together)]
        found[source] = (share, [laid_out(conversations, piece, context) for piece in pieces])
    return found


QUESTIONS = 3  # asked at fixed steps
SHOWN = 160  # characters of a question, of its end


def prepare(recipe, folder: Path, model: Any, tokenizer, variables: Mapping | None = None) -> Iterator[Event | None]:
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


def resolved(recipe, model: Any):
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
    rank will be made, or a copy for 0.
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


def flops(model: Any) -> float:
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
    vocab_size = cast(Any, training.model).config.get_text_config().vocab_size
    ids = random.integers(0, vocab_size, (rows, T))
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
