"""Pretraining: from a recipe to a `Training` at step 0 (measure, collect, tokenize, pack, build), and its steps.

Data type, length and vocabulary are known only once the machine and the data are: the `Training` has the recipe as it
was resolved. The architectures are those of transformers, so the saved folder loads anywhere. The initialization is
ours: matrices with standard deviation 1/sqrt(inputs), the two projections that write into the residual stream at zero
(each block starts as the identity), a small head; drawn on the CPU from the seed, so that every device starts from the
same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jupyter_gpt.data.documents import Documents
from jupyter_gpt.data.packing import Rows, validation_rows
from jupyter_gpt.data.prepare import prepare as collect
from jupyter_gpt.data.tokenizer import token_bytes
from jupyter_gpt.imports import without_garbage_collection
from jupyter_gpt.inference.engine import sample
from jupyter_gpt.nn import devices, training_memory
from jupyter_gpt.nn.lora import copied
from jupyter_gpt.nn.loss import IGNORE, eager_softmax_gradient, softmax_gradient
from jupyter_gpt.nn.optimizer import optimizers
from jupyter_gpt.nn.output_head import OutputHead, output_head
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.runs.events import Evaluation, Event, Progress, Sample
from jupyter_gpt.stages.loop import Micro, Trainer
from jupyter_gpt.stages.speed import steps_in
from jupyter_gpt.stages.stage import LOGITS, MICRO_TOKENS

SAMPLE_TOKENS, SAMPLE_TEMPERATURE = 64, 0.8  # of the samples at fixed steps
PROMPT_WORDS = 5  # of a held-out document, for the fixed prompts
RESIDUAL_WRITERS = ("o_proj", "down_proj", "c_proj")


def prepare(
    recipe, folder: Path, device: str, variables: Mapping | None = None, tokenizer=None, base: Any = None
) -> Iterator[Event | None]:
    """Yields progress events, returns the `Training` at step 0.

    The tokens go to `folder/data`; those of a resumed run are there already, and used as they are. `tokenizer` is that
    of another model, if the recipe names one; `base` is the model that is continued, in fp32.
    """
    if recipe.dtype == "auto":
        recipe = recipe.replace(dtype=devices.choose_dtype(device, recipe.width))
    yield from devices.notes(device, recipe.dtype)
    recipe = yield from fitted(recipe, len(tokenizer) if tokenizer else recipe.vocab_size, device, base)
    if not recipe.steps:
        yield Progress(stage="measuring the speed", unit="steps")
        recipe = recipe.with_steps(measured_steps(recipe, device, base))
    if (folder / "data" / "documents.json").exists():
        documents = Documents.open(folder / "data")
        tokenizer = documents.tokenizer()
    else:
        tokenizer, documents = yield from collect(
            recipe.mixture,
            recipe.steps * recipe.batch_tokens,
            folder / "data",
            tokenizer=tokenizer or recipe.tokenizer,
            vocab_size=recipe.vocab_size,
            context=recipe.context,
            seed=recipe.seed,
            variables=variables,
            held_out=recipe.held_out,
        )
    yield Progress(stage="building the model", unit="parameters")
    recipe = recipe.replace(vocab_size=len(tokenizer), prompts=recipe.prompts or first_words(documents, tokenizer))
    model: Any = build(recipe, len(tokenizer), documents.eot) if base is None else copied(base)
    model = model.to(device)
    sizes = token_bytes(tokenizer)
    # On a GPU torch.compile pays for runs longer than its own minute. On a CPU it needs a C++ compiler and gains little
    # over the fused kernels of the training forward.
    pays = device == "cuda" and recipe.steps * recipe.accumulation >= 300
    compile = pays if recipe.compile is None else recipe.compile
    return Training(
        recipe=recipe,
        model=model,
        tokenizer=tokenizer,
        optimizers=optimizers(model, recipe, compile),
        rows=Rows(documents, recipe.context, recipe.seed),
        held_out=held_out_rows(documents, recipe.context),
        token_bytes=np.pad(sizes, (0, model.config.vocab_size - len(sizes))).astype(np.float32),
        prompts=[
            (text, [documents.eot, *tokenizer(text, add_special_tokens=False, verbose=False).input_ids])
            for text in recipe.prompts
        ],
        eot=documents.eot,
        flops_per_token=flops_per_token(recipe, model),
        peak_flops=devices.peak_flops(device, recipe.dtype),
        compile=compile,
    )


def fitted(recipe, vocabulary: int, device: str, base: Any = None) -> Iterator[Event]:
    """The recipe with the micro-batch that the memory of the device holds: a part of the batch in whole rows.

    Yields a note if memory is short. Raises GPTError if not even one row fits.
    """
    batch, most = recipe.batch_tokens // recipe.context, MICRO_TOKENS
    most = max(1, (min(most, LOGITS // vocabulary) if recipe.loss else most) // recipe.context)
    rows = [recipe.rows] if recipe.rows else [n for n in range(min(batch, most), 0, -1) if batch % n == 0]
    sizes, step, parameters = [n * recipe.context for n in rows], *memory_step(recipe, vocabulary, device, base)
    tokens, recomputed = training_memory.fit(
        f"a model of {parameters:,} parameters",
        step,
        sizes,
        recipe.checkpointing,
        device,
        otherwise="a lower --depth or --width would fit",
    )
    yield from training_memory.notes(sizes[0], tokens, recomputed)
    return recipe.replace(rows=tokens // recipe.context, checkpointing=recomputed)


def memory_step(recipe, vocabulary: int, device: str, base: Any = None) -> tuple[training_memory.Step, int]:
    """The memory of a step, by formula, and the parameters of a model that is not built or copied yet."""
    model = base
    if model is None:
        with torch.device("meta"):
            model = build(recipe, vocabulary, 0)
    step = training_memory.finetuning(
        model, recipe.dtype, recipe.context, rank=0, optimizer=recipe.optimizer, whole=recipe.context, device=device
    )
    return step, sum(p.numel() for p in model.parameters())


def measured_steps(recipe, device: str, base: Any = None) -> int:
    """How many steps `recipe.minutes` hold on this machine, measured on random tokens. The vocabulary is not known yet:
    that of characters is taken as 128."""
    vocabulary = 128 if recipe.tokenizer == "char" else recipe.vocab_size
    model = (build(recipe, vocabulary, 0) if base is None else copied(base)).to(device)
    tokens = np.random.default_rng(0).integers(0, vocabulary, (recipe.rows, recipe.context + 1))
    rows = SimpleNamespace(batch=lambda indices: tokens)
    return steps_in(
        recipe.minutes, Training(recipe=recipe, model=model, optimizers=optimizers(model, recipe), rows=rows)
    )


def held_out_rows(documents, context: int) -> dict[str, tuple[float, np.ndarray]]:
    """Each source's share of the mixture and its held-out rows `(R, T+1)`, padding marked IGNORE, by name."""
    rows = {}
    for i, (source, weight) in enumerate(zip(documents.names, documents.weights, strict=True)):
        own = replace(documents, held_out=documents.held_out & (documents.source == i))
        ids, counts = validation_rows(own, context)
        if weight and len(ids):
            ids[:, 1:][~counts] = IGNORE
            rows[source] = (weight / sum(documents.weights), ids)
    return rows


def first_words(documents, tokenizer) -> list[str]:
    """Fixed prompts: the first words of a document of each of the three heaviest sources, held out if there is one."""
    prompts = []
    for source in sorted(range(len(documents.names)), key=lambda i: -documents.weights[i])[:3]:
        own = np.flatnonzero(documents.source == source)
        held_out = own[documents.held_out[own]]
        document = documents[int((held_out if len(held_out) else own)[0])]
        text = tokenizer.decode(document[int(document[0] == documents.eot) : 200].tolist())
        paragraph = text.split("\n\n")[0]
        words = (paragraph if len(paragraph.split()) >= PROMPT_WORDS else text).split(" ")[:PROMPT_WORDS]
        prompts.append(" ".join(words)[:48])
    return prompts


@without_garbage_collection()
def build(recipe, vocab_size: int, eot: int) -> nn.Module:
    """A causal LM in fp32 on the CPU, its weights a function of the recipe and its seed alone.

    `vocab_size` is that of the tokenizer; a large table is padded to a multiple of 64 rows, for speed.
    """
    import transformers  # each of its names is imported at its first use

    table = -(-vocab_size // 64) * 64 if vocab_size >= 512 else vocab_size
    common = {"vocab_size": table, "bos_token_id": eot, "eos_token_id": eot, "tie_word_embeddings": recipe.tied}
    if recipe.arch == "gpt2":
        dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        shape = {
            "n_positions": recipe.context,
            "n_embd": recipe.width,
            "n_layer": recipe.layers,
            "n_head": recipe.heads,
            "n_inner": recipe.mlp,
        }
        kind: Any = transformers.GPT2LMHeadModel
        config = transformers.GPT2Config(**shape, **dropout, **common)
    else:
        shape = {
            "hidden_size": recipe.width,
            "intermediate_size": recipe.mlp,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads,
            "num_key_value_heads": recipe.kv_heads,
            "head_dim": recipe.width // recipe.heads,
            "max_position_embeddings": recipe.context,
        }
        if recipe.arch == "llama":
            kind, config = transformers.LlamaForCausalLM, transformers.LlamaConfig(rms_norm_eps=1e-5, **shape, **common)
        else:
            kind, config = transformers.Qwen3ForCausalLM, transformers.Qwen3Config(rms_norm_eps=1e-6, **shape, **common)
    with devices.seeded(recipe.seed, torch.device("cpu")):  # what the library draws here is drawn again below
        model: Any = kind(config)
    initialise(model, recipe)
    return model


@torch.no_grad()
def initialise(model: Any, recipe) -> None:
    """Draw every weight from `recipe.seed`."""
    from transformers.pytorch_utils import Conv1D

    generator = torch.Generator().manual_seed(recipe.seed)
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(0.0, 0.02 if recipe.tied or recipe.optimizer != "muon" else 0.5, generator=generator)
        elif isinstance(module, nn.Linear | Conv1D) and not (module is head and recipe.tied):
            inputs = module.weight.shape[0 if isinstance(module, Conv1D) else 1]
            if name.rsplit(".", 1)[-1] in RESIDUAL_WRITERS:
                module.weight.zero_()
            else:
                module.weight.normal_(0.0, 0.02 if module is head else inputs**-0.5, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()


def flops_per_token(recipe, model: Any) -> float:
    """Training FLOPs per token: 6 per multiplied parameter and 12 L T d for attention (Chowdhery et al. 2022, app. B).

    The input table is looked up, not multiplied, unless the head shares it.
    """
    multiplied = sum(p.numel() for p in model.parameters())
    multiplied -= 0 if recipe.tied else model.config.vocab_size * recipe.width
    if recipe.arch == "gpt2":
        multiplied -= recipe.context * recipe.width
    return 6.0 * multiplied + 12.0 * recipe.layers * recipe.width * recipe.context


@dataclass(kw_only=True, eq=False)
class Training(Trainer):
    """A model in pretraining.

    `rows` serves training rows `(B, T+1)` by index; `held_out` maps each source to its share and its validation rows
    `(R, T+1)` with IGNORE as padding of the targets; `token_bytes` `(V,)` counts the bytes of each token; `prompts` are
    (text, ids) to sample from.
    """

    rows: Any
    token_bytes: Any = None
    prompts: list[tuple[str, list[int]]] = field(default_factory=list)
    eot: int = 0
    compile: bool = False
    functions: tuple = field(default=(), repr=False)

    @property
    def about(self) -> str:
        recipe = self.recipe
        return (
            f"{recipe.arch}, {recipe.layers} layers of {recipe.width}, {recipe.heads} heads, context {recipe.context}, "
            f"vocabulary {recipe.vocab_size:,}, {recipe.batch_tokens:,} tokens per step"
        )

    @property
    def facts(self) -> dict:
        return {"compile": self.compile}

    @cached_property
    def micro_rows(self) -> int:
        """Rows of a micro-batch: those of the recipe, or fewer if only then each rank has as many micro-batches."""
        rows, ranks = self.recipe.batch_tokens // self.recipe.context, 1 if self.ranks is None else self.ranks.size
        even = (n for n in range(self.recipe.rows, 0, -1) if rows % n == 0 and rows // n % ranks == 0)
        return next(even, self.recipe.rows)

    def micro_batches(self, step: int) -> int:
        return self.recipe.batch_tokens // (self.micro_rows * self.recipe.context)

    def micro_batch(self, step: int, number: int) -> Micro:
        """Inputs and targets `(B, T)`: a function of the place in the run alone."""
        count, rows = self.micro_batches(step), self.micro_rows
        first = ((step - 1) * count + number) * rows
        inputs = to_device(self.rows.batch(np.arange(first, first + rows)), self.device)
        return Micro(inputs, 1 / count, rows * self.recipe.context)

    def forward_functions(self) -> tuple:
        """The loss as a function of (ids, targets), compiled if `compile`; and trunk and head, uncompiled."""
        if not self.functions:
            recipe = self.recipe
            trunk = fast = Trunk(self.model, recipe.context, getattr(torch, recipe.dtype), bool(recipe.checkpointing))
            head, gradient = output_head(trunk), eager_softmax_gradient
            if self.compile:
                fast = torch.compile(trunk, dynamic=False)
                gradient = torch.compile(softmax_gradient, dynamic=False)

            def loss(ids: Tensor, targets: Tensor) -> Tensor:
                hidden = fast(ids)
                if self.own_loss is not None:
                    return self.loss_of_logits(head.logits(hidden.flatten(0, 1)), targets.flatten())
                return head.cross_entropy(hidden, targets, gradient)

            self.functions = (loss, trunk, head)
        return self.functions

    def sharded_trunk(self) -> Trunk:
        self.compile = False
        return self.forward_functions()[1]

    def loss(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        return self.forward_functions()[0](*inputs)

    def evaluate(self) -> Iterator[Event | None]:
        """Validation loss in nats per token, and bits per byte of text: the end-of-text token has no byte, and counts
        in the loss only.

        Each source is read at rows spread evenly through its held-out text, and counts by its share of the mixture: the
        figure is about the training data, however much of a source was held out.
        """
        recipe, device = self.recipe, self.device
        _, trunk, head = self.forward_functions()
        if self.peak_flops and device.type == "cpu":
            self.peak_flops = devices.peak_flops("cpu", recipe.dtype, 0.02)
        began = time.perf_counter()
        sizes = torch.from_numpy(self.token_bytes).to(device)
        at_once = max(1, (4096 if device.type == "cpu" else 65536) // recipe.context)
        mixed, by_source = np.zeros(4), {}
        for source, (share, rows) in self.held_out.items():
            wanted = max(1, min(len(rows), round(share * recipe.eval_tokens / recipe.context)))
            places = np.linspace(0, len(rows) - 1, wanted).round().astype(int)
            sums = np.zeros(4)
            for first in range(0, wanted, at_once):
                ids, targets = to_device(rows[places[first : first + at_once]], device)
                sums += self.reads(partial(held_out_losses, trunk, head, sizes, ids.clamp(min=0), targets))
                yield None
            by_source[source] = sums[0] / sums[1]
            mixed += share * sums / sums[1]
        bits = mixed[2] / math.log(2) / mixed[3] if mixed[3] else None
        values = {"val_loss": mixed[0] / mixed[1], "bits_per_byte": bits}
        seconds = time.perf_counter() - began
        yield Evaluation(step=self.step, values=values, seconds=seconds, facts={"by_source": by_source})

    def samples(self) -> Iterator[Event | None]:
        """One sample of each fixed prompt."""
        with self.whole() as model:
            if model is None:
                return
            for number, (text, ids) in enumerate(self.prompts):
                tokens, seed = [], self.recipe.seed * 1000 + number
                for token in sample(model, ids, SAMPLE_TOKENS, SAMPLE_TEMPERATURE, seed, frozenset({self.eot})):
                    tokens.append(token)
                    yield None
                written = self.tokenizer.decode([token for token in tokens if token != self.eot])
                yield Sample(step=self.step, prompt=text, text=written)


def to_device(rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows `(B, T+1)` as inputs and targets on the device, copied asynchronously to a GPU."""
    ids = torch.from_numpy(rows)
    if device.type == "cuda":
        ids = ids.pin_memory().to(device, non_blocking=True)
    else:
        ids = ids.to(device)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


@torch.no_grad()
def held_out_losses(trunk: Trunk, head: OutputHead, sizes: Tensor, ids: Tensor, targets: Tensor) -> np.ndarray:
    """Summed nats of the targets, and their number; nats of those that stand for bytes, and their bytes: `(4,)`."""
    hidden, counted = trunk(ids), targets != IGNORE
    spelled = counted & (sizes[targets.clamp(min=0)] > 0)
    nats = [
        float(head.cross_entropy(hidden[which], targets[which])) * int(which.sum())
        for which in (spelled, counted & ~spelled)
    ]
    return np.array([sum(nats), int(counted.sum()), nats[0], float(sizes[targets[spelled]].sum())])
