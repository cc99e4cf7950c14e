"""The memory of a training step, by formula, and the micro-batch that fits into what is free.

Whatever goes through a model, a step holds weights, gradients and the state of the optimizer. For each token of a
micro-batch it holds the activations that the backward pass reads, counted tensor by tensor as Korthikanti et al. (2022)
count them; gradient checkpointing leaves the input of each layer of them. The logits of a chunk of tokens come on top.
`tests/nn/test_training_memory.py` counts the bytes of real steps and holds the formula to them.

A micro-batch changes no result beyond rounding: the gradient of a step is the same sum, cut elsewhere. So it follows
the memory of the device, and the recipe keeps what was chosen for a resumed run.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import adamw8bit, devices
from jupyter_gpt.nn.sizes import amount
from jupyter_gpt.runs.events import Note

LONGEST, BLOCK = 512, 64  # of `cpu_kernels`: positions up to which attention keeps its probabilities, queries a block
OWN_FORWARD = {4: 1.5, 2: 1.75}  # of transformers' own forward, which upcasts norms and softmax: times what ours keeps
RECURRENT = 3.0  # of state-space and other recurrent layers, which keep the states between tokens: times that once more
EAGER_SCORE = 12  # bytes that attention without a fused kernel keeps for each score
CAPPED_SCORE = 11  # that our attention with capped scores keeps for each
MARGIN = 0.85  # share of the free memory that is planned with: allocators fragment, kernels take workspaces
GRADIENT, WEIGHT = 4, 4  # bytes of a trained parameter's: both stay in fp32
# Tokens that keep a device busy: down to here, smaller micro-batches are preferred to recomputation.
ENOUGH = {"cpu": 512, "cuda": 8192}


@dataclass(frozen=True)
class Shape:
    """What decides the activations of a transformer: `queries` and `keys` are heads times the size of a head.

    parameters: of the layers, without embeddings and head.  gated: the MLP has a gate (SwiGLU), positions are rotary;
    else as in GPT-2.  own: how much more transformers' forward keeps, None where it is not used but `transformer.py`.
    eager: attention keeps scores.
    """

    layers: int
    width: int
    heads: int
    queries: int
    keys: int
    mlp: int
    vocabulary: int
    parameters: int
    gated: bool = True
    own: float | None = None
    eager: bool = False

    def kept(self, text: int, itemsize: int, device: str) -> float:
        """Bytes a token that the backward pass of one layer reads; `text` tokens attend to each other."""
        # inputs of norms and matrices; q, k, v; the output of attention
        numbers = 4 * self.width + 3 * self.queries + 2 * self.keys
        numbers += self.queries + self.keys if self.gated else 0  # rotated
        numbers -= 0 if self.gated else self.queries  # nothing is between the projection of q, k, v and attention
        numbers += (4 if self.gated else 2) * self.mlp
        probabilities = device == "cpu" and text <= LONGEST and not self.own
        numbers += self.heads * (text + BLOCK) / 2 if probabilities else 0
        scores = (EAGER_SCORE if self.own else CAPPED_SCORE) * self.heads * text
        scores = scores if self.eager and not probabilities else 0
        return numbers * itemsize * self.more(itemsize) + scores

    def more(self, itemsize: int) -> float:
        """How much more is kept than by our forward."""
        return self.own * OWN_FORWARD[itemsize] if self.own else 1.0

    def passing(self, itemsize: int) -> float:
        """Bytes a token of the gradients that one layer's backward pass makes on its way."""
        numbers = self.width + (2 if self.gated else 1) * self.mlp
        return numbers * itemsize * self.more(itemsize)

    def copies(self, itemsize: int, trained: bool) -> int:
        """Bytes of weights that the graph holds once more: cast to the activations' format, or laid side by side."""
        if itemsize == 2:
            return 2 * self.parameters if trained or self.own else 0
        side_by_side = self.layers * self.width * (self.queries + 2 * self.keys + 2 * self.mlp)
        return 4 * side_by_side if trained and self.gated and not self.own else 0


@dataclass(frozen=True)
class Step:
    """A step of training on `device`. `itemsize` is that of the activations, `text` the most tokens of one text,
    `whole` those that pass through the model together whatever the micro-batch.

    state: bytes of weights, gradients and optimizer that are not taken yet.  trained: the layers' weights are trained,
    not an adapter beside them.  head: None where no logits are made, else whether the head is trained.  update: bytes
    that the optimizer takes for a moment, after the activations are freed.
    """

    shape: Shape
    device: str
    itemsize: int
    text: int
    state: int
    trained: bool
    head: bool | None
    update: int = 0
    whole: int = 1
    recomputable: bool = True

    def activations(self, tokens: int, recomputed: bool) -> float:
        """Bytes at the height of the backward pass of a micro-batch of `tokens`."""
        shape, size, tokens = self.shape, self.itemsize, max(tokens, self.whole)
        kept = shape.kept(min(self.text, tokens), size, self.device) * tokens
        copies, passing = shape.copies(size, self.trained), shape.passing(size) * tokens
        tail = 3 * shape.width * size * tokens  # the last layer's states, normed, and their gradient
        if recomputed:
            stored, layer = shape.layers * shape.width * size * tokens, kept + copies / shape.layers
        else:
            stored, layer = shape.layers * kept + copies, 0.0
        return stored + tail + max(self.logits(tokens), layer + passing)

    def logits(self, tokens: int) -> float:
        """Bytes of a chunk of logits, and of the head in the dtype of the activations; each with its gradient."""
        from jupyter_gpt.nn.loss import chunk_rows

        if self.head is None:
            return 0.0
        vocabulary, width = self.shape.vocabulary, self.shape.width
        chunk = min(tokens, chunk_rows(vocabulary, self.device))
        matrix = (self.itemsize if self.itemsize < 4 else 0) + (2 * GRADIENT if self.head else 0)
        return chunk * vocabulary * (self.itemsize + 8) + vocabulary * width * matrix

    def bytes(self, tokens: int, recomputed: bool) -> float:
        """Bytes that a step takes beyond what is taken already."""
        return self.state + max(self.activations(tokens, recomputed), self.update)


def moments(optimizer: str, matrices: int, rest: int = 0) -> int:
    """Bytes of the optimizer's state: two fp32 moments of each parameter, of Muon's matrices one, of the matrices of an
    AdamW of 8 bits two in these."""
    return int({"muon": 4, adamw8bit.NAME: adamw8bit.MOMENTS}.get(optimizer, 8) * matrices) + 8 * rest


def muon_update(matrices: int, itemsize: int) -> int:
    """Bytes that Muon takes while it orthogonalises its largest stack, most of all matrices: gradients in fp32, and
    four tensors in the number format of the products."""
    return int(0.7 * matrices * (4 + 4 * itemsize))


def shape_of(module) -> Shape:
    """The shape of a causal LM or classifier of transformers, peft or not."""
    from torch import nn

    from jupyter_gpt.nn.architectures import KINDS, is_known_architecture
    from jupyter_gpt.nn.modules import keeps_keys_and_values

    module = module.get_base_model() if hasattr(module, "get_base_model") else module
    config, own = module.config.get_text_config(), None
    if not is_known_architecture(module):
        own = 1.0 if keeps_keys_and_values(module) else RECURRENT

    kind = KINDS.get(config.model_type)
    capped = kind is not None and kind.score_cap and config.attn_logit_softcapping

    def first(*names: str, default: int) -> int:
        """The first of these that the configuration has; where it has one for each layer, the largest."""
        found = next((value for name in names if (value := getattr(config, name, None))), default)
        return max(found) if isinstance(found, list | tuple) else int(found)

    width, heads = first("hidden_size", default=1), first("num_attention_heads", "num_heads", default=1)
    head = first("head_dim", default=-(-width // heads))
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    layers = {
        name: p for name, p in module.base_model.named_parameters() if id(p) not in tables and "lora_" not in name
    }
    return Shape(
        layers=first("num_hidden_layers", default=1),
        width=width,
        heads=heads,
        queries=heads * head,
        keys=first("num_key_value_heads", default=heads) * head,
        mlp=first("intermediate_size", "n_inner", "ffn_dim", default=4 * width),
        vocabulary=first("vocab_size", default=1),
        parameters=sum(p.numel() for p in layers.values() if p.ndim > 1),
        gated=any("gate" in name for name in layers),
        own=own,
        eager=bool(capped) if own is None else getattr(config, "_attn_implementation", None) == "eager",
    )


def finetuning(
    module,
    dtype: str,
    text: int,
    *,
    rank: int | None = None,
    optimizer: str = "adamw",
    logits: bool = True,
    whole: int = 1,
    models: int = 1,
    remembered: bool = False,
    device: str | None = None,
) -> Step:
    """The step of a training of `module`, on `device` if that is not its own.

    Without `rank` the module is what is trained; with it the base, of which an adapter of that rank will be made, or a
    copy for 0. `models` such are trained one after the other; `remembered` keeps another copy of what is trained and of
    its optimizer, as RL does over several updates.
    """
    import torch

    from jupyter_gpt.nn.transformer import recomputable

    shape, size = shape_of(module), getattr(torch, dtype).itemsize
    parameters = dict(module.named_parameters())
    if rank is None:
        trained = sum(p.numel() for p in parameters.values() if p.requires_grad)
        full = any(p.requires_grad for name, p in parameters.items() if p.ndim > 1 and "lora_" not in name)
    else:
        trained = adapter_size(module, rank) if rank else sum(p.numel() for p in parameters.values())
        full = not rank
    matrices = min(trained, shape.parameters) if optimizer != "adamw" else 0
    kept = moments(optimizer, matrices, trained - matrices)
    state = (0 if rank is None else WEIGHT * trained) + GRADIENT * trained + kept
    return Step(
        shape,
        device or module.device.type,
        size,
        text,
        models * (state + (WEIGHT * trained + kept if remembered else 0)),
        full,
        full if logits else None,
        muon_update(matrices, size) if optimizer == "muon" else 0,
        whole,
        recomputable(module),
    )


def adapter_size(module, rank: int) -> int:
    """Parameters of a LoRA adapter of all linear layers of `module`."""
    from jupyter_gpt.nn.lora import linear_layers

    return sum(rank * sum(module.get_submodule(name).weight.shape) for name in linear_layers(module))


def halves(most: int, least: int) -> list[int]:
    """`most`, half of it, and so on; at last `least`."""
    found = [most]
    while found[-1] > least:
        found.append(max(least, found[-1] // 2))
    return found


def choose(step: Step, sizes: Sequence[int], checkpointing: bool | None, room: int | None) -> tuple[int, bool] | None:
    """The tokens of a micro-batch, one of `sizes` (falling), and whether its activations are recomputed.

    As many tokens as `room` bytes hold; recomputation, which costs a third more work, only where they would become
    fewer than keep the device busy. `checkpointing` decides it where it is given. None where nothing fits.
    """
    checkpointing = checkpointing if step.recomputable else False
    if room is None:
        return sizes[0], bool(checkpointing)
    enough = min(sizes[0], ENOUGH.get(step.device, 512))
    order = [(size, bool(checkpointing)) for size in sizes]
    if checkpointing is None:
        order = [(size, again) for again in (False, True) for size in sizes if again or size >= enough]
    fits = (each for each in order if step.bytes(*each) <= MARGIN * room)
    return next(fits, order[-1] if step.bytes(*order[-1]) <= room else None)


def fit(
    what: str,
    step: Step,
    sizes: Sequence[int],
    checkpointing: bool | None,
    device: str,
    adapter: Step | None = None,
    otherwise: str = "a smaller model would fit",
) -> tuple[int, bool]:
    """As `choose`, for what is free on `device` now.

    Raises GPTError, one line, where nothing fits: how much `what` needs, what there is, and what would fit: an adapter
    (`adapter` is its step), or a shorter context.
    """
    devices.release(device)
    room, ranks = devices.free(device), devices.current_ranks()
    if ranks is not None:
        step = replace(step, state=step.state // ranks.size) if ranks.shard else step
        room = room // ranks.beside if room and device == "cpu" else room
    chosen = choose(step, sizes, checkpointing, room)
    if chosen is not None:
        return chosen
    least = max(sizes[-1], step.whole)
    others = {"--lora 16": (adapter, least)} if adapter else {}
    others |= {f"--context {text}": (replace(step, text=text, whole=text), text) for text in halves(least, 64)[1:]}
    fitting = [
        f"{flag} needs {amount(other.bytes(tokens, True))}"
        for flag, (other, tokens) in others.items()
        if other.bytes(tokens, True) <= room
    ]
    needed = step.bytes(least, checkpointing is not False)
    raise GPTError(
        f"{what} needs about {amount(needed)} to train: {amount(step.state)} for weights, gradients and "
        f"optimizer, {amount(needed - step.state)} for {least:,} tokens at a time. "
        f"{device.partition(':')[0]} has {amount(room)} free: {' or '.join(fitting[:2]) or otherwise}"
    )


def with_micro_batch(recipe, name: str, module, usual: int, *, text: int, least: int = 0, adapter=True, **step):
    """The recipe with `micro_tokens`, from `usual` tokens down to `least` (default: `text`) unless they are given in
    it, and `checkpointing`; a generator of notes.

    The step is that of `finetuning(module, recipe.dtype, text, **step)`, and `least` tokens pass through the model at
    once in any case. Yields a note if memory is short. Raises GPTError as `fit` does; with `adapter` the message says
    what an adapter instead of the model `name` would need.
    """
    least = least or text
    size = functools.partial(finetuning, module, recipe.dtype, text, whole=least)
    own = size(**step)
    if recipe.checkpointing and not own.recomputable:
        raise GPTError(f"{module.config.model_type} models cannot recompute activations: leave --checkpointing out")
    sizes = [recipe.micro_tokens] if recipe.micro_tokens else halves(usual, min(least, usual))
    other = size(**{**step, "rank": 16}) if own.trained and adapter else None
    tokens, recomputed = fit(name, own, sizes, recipe.checkpointing, str(module.device), other)
    yield from notes(sizes[0], tokens, recomputed)
    return recipe.replace(micro_tokens=tokens, checkpointing=recomputed)


def notes(usual: int, tokens: int, recomputed: bool) -> Iterator[Note]:
    """A note where a micro-batch is not what it is where memory is plenty."""
    if tokens < usual or recomputed:
        again = ", and activations are recomputed in the backward pass (gradient checkpointing)" if recomputed else ""
        yield Note(text=f"memory: {tokens:,} tokens go through the model at a time{again}")
