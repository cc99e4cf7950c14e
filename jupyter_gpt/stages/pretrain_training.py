"""Pretraining as a generator of events: `for event in pretrain(training): ...`. There is no trainer and no callback.

From a recipe to a `Training` that can take its first step: measure, collect, tokenize, lay out, build.

A generator of progress events, like the loop itself, so that a stop is felt here too. It returns the Training and the
recipe as it was resolved: number format, length and vocabulary are facts only once the machine and the data are known.

The architectures are the library's own, so the saved folder loads anywhere. The initialization is ours: matrices with
standard deviation 1/sqrt(inputs), the two projections that write into the residual stream at zero (each block starts
as the identity), a small head; drawn on the CPU from the seed, so that every device starts from the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import devices as machine
from jupyter_gpt.nn import training_memory as memory
from jupyter_gpt.nn.devices import peak_flops, seeded
from jupyter_gpt.nn.loss import IGNORE, eager_softmax_gradient, softmax_gradient
from jupyter_gpt.nn.optimizer import Optimizers, optimizers
from jupyter_gpt.nn.output_head import OutputHead, output_head
from jupyter_gpt.nn.parameter_count import parameters
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.runs.events import Evaluation, Event, Progress, Sample
from jupyter_gpt.stages.loop import Micro, Trainer, train
from jupyter_gpt.stages.stage import MICRO_TOKENS

SAMPLE_TOKENS = 64  # the length of a sample at a fixed step
SAMPLE_TEMPERATURE = 0.8


@dataclass
class Training(Trainer):
    """A model on its way from random weights, or from those of a base.

    `rows` serves training rows `(B, T+1)` by index; `held_out` maps each source to its share and its validation rows
    `(R, T+1)` with IGNORE as padding of the targets; `token_bytes` `(V,)` counts the bytes each token stands for;
    `prompts` are (text, ids) to sample from.
    """

    recipe: Any
    model: nn.Module
    tokenizer: Any
    optimizers: Optimizers
    rows: Any
    held_out: dict[str, tuple[float, np.ndarray]]
    token_bytes: np.ndarray
    prompts: list[tuple[str, list[int]]]
    eot: int
    flops_per_token: float
    peak_flops: float | None
    compile: bool
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
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

    def set_position(self, position: Mapping) -> None:
        super().set_position({"tokens": position["step"] * self.recipe.batch_tokens, **position})  # of earlier versions

    def micro_batches(self, step: int) -> int:
        return self.recipe.accumulation

    def micro_batch(self, step: int, number: int) -> Micro:
        """A function of its place in the run alone."""
        recipe = self.recipe
        inputs = batch_at(self, step, number)
        return Micro(inputs, 1 / recipe.accumulation, recipe.rows * recipe.context)

    def loss(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        loss, *_ = forward_functions(self)
        return loss(*inputs)

    def evaluate(self) -> Iterator[Event | None]:
        return evaluate(self, *forward_functions(self)[1:])

    def samples(self) -> Iterator[Event | None]:
        """A sample of each fixed prompt, as the model stands."""
        return sample_prompts(self)


def pretrain(training: Training) -> Iterator[Event | None]:
    """Train until `recipe.steps`, from wherever `training` stands; see `loop.train`."""
    return train(training)


def forward_functions(training: Training) -> tuple:
    """The loss as a function of (ids, targets), compiled when asked, and trunk and head as they are for evaluation."""
    if not training.functions:
        dtype = getattr(torch, training.recipe.dtype)
        trunk = fast_trunk = Trunk(training.model, training.recipe.context, dtype, bool(training.recipe.checkpointing))
        head, gradient = output_head(trunk), eager_softmax_gradient
        if training.compile:
            fast_trunk = torch.compile(trunk, dynamic=False)
            gradient = torch.compile(softmax_gradient, dynamic=False)

        def loss(ids: Tensor, targets: Tensor) -> Tensor:
            return head.cross_entropy(fast_trunk(ids), targets, gradient)

        training.functions = (loss, trunk, head)
    return training.functions


def batch_at(training: Training, step: int, micro: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets `(B, T)` of one micro-batch: a function of its place in the run alone."""
    recipe = training.recipe
    first = ((step - 1) * recipe.accumulation + micro) * recipe.rows
    return to_device(training.rows.batch(np.arange(first, first + recipe.rows)), training.device)


def to_device(rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows `(B, T+1)` as inputs and targets on the device, copied behind the device's back where memory is pinned."""
    ids = torch.from_numpy(rows)
    if device.type == "cuda":
        ids = ids.pin_memory().to(device, non_blocking=True)
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


def evaluate(training: Training, trunk: Trunk, head: OutputHead) -> Iterator[Event | None]:
    """Validation loss in nats per token, and bits per byte of text: the end-of-text token has no byte, and counts in
    the loss alone.

    Each source is read at rows spread evenly through its held-out text, and counts by its share of the mixture, so
    the figure is about what is trained on, however much of a source was held out.
    """
    recipe, device = training.recipe, training.device
    if training.peak_flops and device.type == "cpu":
        training.peak_flops = peak_flops("cpu", recipe.dtype, 0.02)
    began = time.perf_counter()
    sizes = torch.from_numpy(training.token_bytes).to(device)
    at_once = max(1, (4096 if device.type == "cpu" else 65536) // recipe.context)
    mixed, by_source = np.zeros(4), {}
    for source, (share, rows) in training.held_out.items():
        wanted = max(1, min(len(rows), round(share * recipe.eval_tokens / recipe.context)))
        places = np.linspace(0, len(rows) - 1, wanted).round().astype(int)
        sums = np.zeros(4)
        for first in range(0, wanted, at_once):
            ids, targets = to_device(rows[places[first : first + at_once]], device)
            sums += held_out_losses(trunk, head, sizes, ids.clamp(min=0), targets)
            yield None
        by_source[source] = sums[0] / sums[1]
        mixed += share * sums / sums[1]
    bits = mixed[2] / math.log(2) / mixed[3] if mixed[3] else None
    yield Evaluation(
        step=training.step,
        values={"val_loss": mixed[0] / mixed[1], "bits_per_byte": bits},
        seconds=time.perf_counter() - began,
        facts={"by_source": by_source},
    )


def sample_prompts(training: Training) -> Iterator[Event | None]:
    """One sample of each fixed prompt, as the model stands."""
    from jupyter_gpt.inference.engine import sample

    for number, (text, ids) in enumerate(training.prompts):
        sampled = []
        seed = training.recipe.seed * 1000 + number
        for token in sample(training.model, ids, SAMPLE_TOKENS, SAMPLE_TEMPERATURE, seed, frozenset({training.eot})):
            sampled.append(token)
            yield None
        shown = training.tokenizer.decode([t for t in sampled if t != training.eot])
        yield Sample(step=training.step, prompt=text, text=shown)


PROMPT_WORDS = 5  # of a held-out document, for the fixed prompts


def prepare(
    recipe, folder: Path, device: str, variables: Mapping | None = None, tokenizer=None
) -> Iterator[Event | None]:
    """Yields progress events, returns the `Training` at step 0.

    The tokens go to `folder/data`; when they are there already (a resumed run) they are used as they are. `tokenizer`
    is that of another model, when the recipe names one.
    """
    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.data.packing import Rows
    from jupyter_gpt.data.prepare import prepare as collect
    from jupyter_gpt.data.tokenizer import token_bytes

    if recipe.dtype == "auto":
        recipe = recipe.replace(dtype=machine.choose_dtype(device, recipe.width))
    yield from machine.notes(device, recipe.dtype)
    recipe = yield from fitted(recipe, len(tokenizer) if tokenizer else recipe.vocab_size, device)
    if not recipe.steps:
        yield Progress(stage="measuring the speed", unit="steps")
        recipe = recipe.with_steps(measured_steps(recipe, device))
    wanted = recipe.steps * recipe.batch_tokens
    if (folder / "data" / "documents.json").exists():
        documents = Documents.open(folder / "data")
        tokenizer = documents.tokenizer()
    else:
        tokenizer, documents = yield from collect(
            recipe.mixture,
            wanted,
            folder / "data",
            tokenizer=tokenizer or recipe.tokenizer,
            vocab_size=recipe.vocab_size,
            context=recipe.context,
            seed=recipe.seed,
            variables=variables,
            held_out=recipe.held_out,
        )
    yield Progress(stage="building the model", unit="parameters")
    recipe = recipe.replace(vocab_size=len(tokenizer))
    model: Any = build(recipe, len(tokenizer), documents.eot).to(device)
    prompts = recipe.prompts or first_words(documents, tokenizer)
    recipe = recipe.replace(prompts=prompts)
    compile = compiles(recipe, device) if recipe.compile is None else recipe.compile
    parameters = sum(p.numel() for p in model.parameters())
    return Training(
        recipe=recipe,
        model=model,
        tokenizer=tokenizer,
        optimizers=optimizers(model, recipe, compile),
        rows=Rows(documents, recipe.context, recipe.seed),
        held_out=held_out_rows(documents, recipe.context),
        token_bytes=padded(token_bytes(tokenizer), model.config.vocab_size),
        prompts=[
            (p, [documents.eot, *tokenizer(p, add_special_tokens=False, verbose=False).input_ids]) for p in prompts
        ],
        eot=documents.eot,
        flops_per_token=flops_per_token(recipe, parameters, model.config.vocab_size),
        peak_flops=machine.peak_flops(device, recipe.dtype),
        compile=compile,
    )


def fitted(recipe, vocabulary: int, device: str) -> Iterator[Event]:
    """The recipe with the micro-batch that the memory of the device holds: a part of the batch in whole rows.

    Yields a note where that is not the usual one. Raises GPTError where not one row fits.
    """
    batch = recipe.batch_tokens // recipe.context
    most = max(1, MICRO_TOKENS // recipe.context)
    rows = [recipe.rows] if recipe.rows else [n for n in range(min(batch, most), 0, -1) if batch % n == 0]
    step = memory.pretraining(recipe, vocabulary, device)
    tokens, recomputed = memory.fit(
        f"a model of {parameters(recipe, vocabulary):,} parameters",
        step,
        [n * recipe.context for n in rows],
        recipe.checkpointing,
        device,
        otherwise="a lower --depth or --width would fit",
    )
    yield from memory.notes(rows[0] * recipe.context, tokens, recomputed)
    return recipe.replace(rows=tokens // recipe.context, checkpointing=recomputed)


def held_out_rows(documents, context: int) -> dict:
    """Each source's held-out rows `(R, T+1)`, padding marked IGNORE, under its name with its share of the mixture."""
    from jupyter_gpt.data.packing import validation_rows

    rows = {}
    for i, (source, weight) in enumerate(zip(documents.names, documents.weights, strict=True)):
        own = replace(documents, held_out=documents.held_out & (documents.source == i))
        ids, counts = validation_rows(own, context)
        if weight and len(ids):
            ids[:, 1:][~counts] = IGNORE
            rows[source] = (weight / sum(documents.weights), ids)
    return rows


def padded(counts, length: int):
    """`counts` `(V,)` with zeros up to the padded vocabulary of the model."""
    import numpy as np

    return np.pad(counts, (0, length - len(counts))).astype(np.float32)


def compiles(recipe, device: str) -> bool:
    """torch.compile pays on a GPU for runs longer than its own minute; on a CPU it needs a C++ compiler and gains
    little over the fused kernels the forward already uses."""
    return device == "cuda" and recipe.steps * recipe.accumulation >= 300


def first_words(documents, tokenizer) -> list[str]:
    """Fixed prompts: how a document of each of the three heaviest sources begins, the first that is held out, if
    any.
    """
    import numpy as np

    prompts = []
    heaviest = sorted(range(len(documents.names)), key=lambda i: -documents.weights[i])[:3]
    for source in heaviest:
        own = np.flatnonzero(documents.source == source)
        held = own[documents.held_out[own]]
        document = documents[int((held if len(held) else own)[0])]
        text = tokenizer.decode(document[int(document[0] == documents.eot) : 200].tolist())
        head = text.split("\n\n")[0] if len(text.split("\n\n")[0].split()) >= PROMPT_WORDS else text
        words = head.split(" ")[:PROMPT_WORDS]
        prompts.append(" ".join(words)[:48])
    return prompts


def measured_steps(recipe, device: str) -> int:
    """How many steps `recipe.minutes` hold on this machine: the median of a few real steps on random tokens."""
    import numpy as np

    vocabulary = 128 if recipe.tokenizer == "char" else recipe.vocab_size
    model = build(recipe, vocabulary, 0).to(device)
    optimizer = optimizers(model, recipe)
    training = Training(recipe, model, None, optimizer, None, {}, np.zeros(0), [], 0, 0, None, False)
    loss, *_ = forward_functions(training)
    ids = torch.randint(0, vocabulary, (recipe.rows, recipe.context), generator=torch.Generator()).to(device)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        for _ in range(recipe.accumulation):
            loss(ids, ids).backward()
            if time.perf_counter() - began > 60 * recipe.minutes:
                raise GPTError(f"--minutes {recipe.minutes} is less than one step of this model takes here")
        optimizer.step(1.0)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return max(1, int(60 * recipe.minutes / sorted(times)[1]))


RESIDUAL_WRITERS = ("o_proj", "down_proj", "c_proj")


def build(recipe, vocab_size: int, eot: int) -> nn.Module:
    """A causal LM in fp32 on the CPU, its weights a function of the recipe and its seed alone.

    `vocab_size` is that of the tokenizer; the table is padded to a multiple of 64 rows when it is large, for speed.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    table = -(-vocab_size // 64) * 64 if vocab_size >= 512 else vocab_size
    common = {"vocab_size": table, "bos_token_id": eot, "eos_token_id": eot, "tie_word_embeddings": recipe.tied}
    if recipe.arch == "gpt2":
        config = GPT2Config(
            n_positions=recipe.context,
            n_embd=recipe.width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            n_inner=recipe.mlp,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
        kind: Any = GPT2LMHeadModel
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
            kind, config = LlamaForCausalLM, LlamaConfig(rms_norm_eps=1e-5, **shape, **common)
        else:
            kind, config = Qwen3ForCausalLM, Qwen3Config(rms_norm_eps=1e-6, **shape, **common)
    with seeded(recipe.seed, torch.device("cpu")):  # what the library draws here is drawn anew
        model = kind(config)
    initialise(model, recipe)
    return model


@torch.no_grad()
def initialise(model: Any, recipe) -> None:
    """Draw every weight anew from `recipe.seed`."""
    from transformers.pytorch_utils import Conv1D

    generator = torch.Generator().manual_seed(recipe.seed)
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(0.0, 0.02 if recipe.tied or recipe.optimizer == "adamw" else 0.5, generator=generator)
        elif isinstance(module, nn.Linear | Conv1D):
            if module is head and recipe.tied:
                continue
            inputs = module.weight.shape[0 if isinstance(module, Conv1D) else 1]
            if name.rsplit(".", 1)[-1] in RESIDUAL_WRITERS:
                module.weight.zero_()
            else:
                std = 0.02 if module is head else inputs**-0.5
                module.weight.normal_(0.0, std, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()


def flops_per_token(recipe, parameters: int, vocab_size: int) -> float:
    """Training FLOPs per token: 6 per multiplied parameter and 12 L T d for attention (Chowdhery et al. 2022, app. B).

    The input table is looked up, not multiplied, unless the head shares it.
    """
    table = vocab_size * recipe.width
    multiplied = parameters - (0 if recipe.tied else table)
    if recipe.arch == "gpt2":
        multiplied -= recipe.context * recipe.width
    return 6.0 * multiplied + 12.0 * recipe.layers * recipe.width * recipe.context
