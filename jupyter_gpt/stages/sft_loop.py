"""Supervised finetuning: next-token prediction on conversations, the loss on the assistant's tokens alone.

Whole rows of packed conversations are a step; they go through the model as streams in which no conversation sees
another (`varlen.py`), the head and its cross-entropy only over the tokens that are trained on. At fixed steps the
model is asked the same questions, so that the answer is seen turning from completion to reply.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jupyter_gpt.nn.devices import seeded
from jupyter_gpt.nn.optimizer import Optimizers
from jupyter_gpt.nn.output_head import OutputHead, output_head
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.nn.varlen import Stream, stream, streams
from jupyter_gpt.runs.events import Evaluation, Event, Sample
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
        from jupyter_gpt.inference.sequence import Request

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
