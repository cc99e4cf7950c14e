"""The training forward: the same function as transformers' Llama, GPT-2 and their kin, written to be fast.

The parameters stay those of the transformers module, so saving, sampling and evaluating need no conversion; only the
path from token ids to hidden states is our own (`modules.py`). fp32 weights are cast once where they are used (no
autocast bookkeeping); q, k, v and gate, up are multiplied as one matrix; rotary tables are made once; attention is
fused; on a CPU the gradients are those of `cpu_kernels.py`; LoRA is multiplied with its layers (`lora_linear.py`);
texts are packed into one stream without attending to each other. Any other architecture than those of
`architectures.py` uses its own forward under autocast. `tests/nn/test_transformer.py`, `test_packed.py` and
`test_shapes.py` compare both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jupyter_gpt.nn import cpu_kernels
from jupyter_gpt.nn import lora_linear as adapted
from jupyter_gpt.nn.architectures import Architecture, Block, Operations, architecture_of, is_known_architecture
from jupyter_gpt.nn.devices import keep_freed_memory
from jupyter_gpt.nn.lora_linear import token_rows
from jupyter_gpt.nn.modules import forget_length, growing_rotations
from jupyter_gpt.nn.varlen import Segments, groups


class Trunk(nn.Module):
    """Token ids `(B, T)` to the last hidden states `(B, T, D)` of a transformers causal LM, after the final norm.

    `dtype` is that of the activations; the parameters keep theirs. The module (or the peft model around it) is
    referenced, not registered, so `Trunk` has no parameters of its own and a `torch.compile` of it never renames what
    is saved. With `recomputed` the activations inside a block are recomputed in the backward pass.
    """

    def __init__(self, model: nn.Module, context: int, dtype: torch.dtype, recomputed: bool = False):
        super().__init__()
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        object.__setattr__(self, "model", model)
        self.ends_at(model.get_submodule(next(iter(trunk_paths(model)), "")))
        self.dtype, self.recomputed, self.mask = dtype, recomputed, None
        self.blocks: list[nn.Module] | None = None  # modules that are called for the blocks, of a model in pieces
        if model.device.type == "cpu":
            keep_freed_memory()
        self.architecture = architecture_of(model, training_operations(dtype))
        if recomputed and self.architecture is None:
            recompute(model)
        for n, rope in enumerate(self.architecture.ropes if self.architecture else ()):
            position = torch.arange(context, device=model.device)[None]
            cos, sin = rope(torch.zeros((), device=model.device), position)
            negated, half = sin[0].clone(), sin.shape[-1] // 2  # each table repeats itself after half a head
            negated[:, :half] *= -1
            self.register_buffer(f"cos{n}", cos[0].to(dtype), persistent=False)
            self.register_buffer(f"sin{n}", negated.to(dtype), persistent=False)
        if model.device.type == "cpu":
            longest = min(context, cpu_kernels.LONGEST)
            del self.mask
            self.register_buffer("mask", torch.full((longest, longest), float("-inf"), dtype=dtype).triu_(1), False)

    def mask_of(self, T: int, window: int | None = None) -> Tensor | None:
        """The causal mask for texts of up to T tokens, each of which sees the last `window`; None for longer texts,
        which use a fused kernel."""
        if self.mask is None or len(self.mask) < T:
            return None
        mask = self.mask[:T, :T]
        if window is not None and window < T:
            mask = mask.masked_fill(~in_window(T, window, mask.device), -torch.inf)
        return mask

    def forward(self, ids: Tensor, segments: Segments | None = None) -> Tensor:
        """With `segments`, `ids` `(1, N)` is a stream of texts, each of which sees only itself."""
        if self.architecture is not None:
            return self.layers(self.architecture, ids, segments)
        with self.autocast(ids.device):
            if segments is not None:
                return text_by_text(self.body, ids, segments)
            return self.body(input_ids=ids, use_cache=False)[0]

    def layers(self, model: Architecture, ids: Tensor, segments: Segments | None) -> Tensor:
        """The forward of a known architecture."""
        B, T = ids.shape
        positions = slice(T) if segments is None else segments.positions
        longest = segments.longest if segments else T
        masks = {window: self.mask_of(longest, window) for window in (None, *model.windows)}
        tables = [
            (getattr(self, f"cos{n}")[positions], getattr(self, f"sin{n}")[positions]) for n in range(len(model.ropes))
        ]

        def layer(x: Tensor, block: Block) -> Tensor:
            qkv = block.qkv(block.norm1(x)).view(B, T, -1, model.width)
            q, k, v = qkv.split([model.heads, model.groups, model.groups], dim=2)
            if block.q_norm is not None:
                q, k = block.q_norm(q), block.k_norm(k)
            if block.rope is not None:
                q, k = rotate(q, *tables[block.rope]), rotate(k, *tables[block.rope])
            else:
                q, k = q.transpose(1, 2), k.transpose(1, 2)
            if model.query_factor is not None:
                q = q * model.query_factor
            mask, limits = masks[block.window], Limits(block.window, model.score_cap)
            x = x + block.out(attention(q, k, v.transpose(1, 2), mask, segments, limits))
            return x + block.mlp(block.norm2(x))

        x = model.embed(ids, positions).to(self.dtype)
        for n, block in enumerate(model.blocks):
            x = self.block(n, layer, x, block)
        return model.norm(x)

    def autocast(self, device: torch.device) -> torch.autocast:
        """What the model's own forward runs under."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype in (torch.bfloat16, torch.float16))

    def ends_at(self, body: nn.Module) -> None:
        """Take the outputs of this part of the model, where it goes through its own forward."""
        object.__setattr__(self, "body", body)

    def logits_alone(self) -> None:
        """Return the model's own logits `(B, T, V)` from here on, if its hidden states are not accessible."""
        self.architecture = None
        self.ends_at(self.model)

    def block(self, number: int, function: Callable[[Tensor, Block], Tensor], x: Tensor, block: Block) -> Tensor:
        """`function(x, block)`, its activations kept or recomputed; inside the call of the block's module, if that is
        what gathers its weights."""

        def run(x: Tensor) -> Tensor:
            if self.recomputed and torch.is_grad_enabled():
                return checkpoint(function, x, block, use_reentrant=False)
            return function(x, block)

        return run(x) if self.blocks is None else self.blocks[number](x, function=run)

    def lies_in(self, blocks: list[nn.Module]) -> None:
        """From here on each block's weights are there during the call of its module only (`sharded.py`): no copies of
        them are laid side by side, which the backward pass would keep."""
        object.__setattr__(self, "blocks", blocks)
        self.architecture = architecture_of(self.model, training_operations(self.dtype, apart=True))


def recomputable(model: nn.Module) -> bool:
    """Whether the activations of a model, peft or not, can be recomputed in the backward pass."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return is_known_architecture(model) or getattr(model, "supports_gradient_checkpointing", False)


def recompute(model: nn.Module) -> None:
    """Have the model's own forward recompute activations."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    enable = getattr(model, "activation_checkpointing_enable", None)  # its name in newer transformers
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    for part in model.modules():  # the library does so in training mode only, which would also turn dropout on
        part.training = part.training or isinstance(part, GradientCheckpointingLayer)


def trunk_paths(model: nn.Module) -> list[str]:
    """Where the part of a causal LM or a classifier may lie that ends in the last hidden states: what holds the table
    of embeddings, from the outside in. A prefix that a class states for it may be wrong, as Llama 4's is."""
    table = model.get_input_embeddings()
    path = next((name for name, part in model.named_modules() if part is table), "").split(".")
    return [".".join(path[:n]) for n in range(1, len(path))]


def probe(model: nn.Module) -> Tensor:
    """A few tokens `(1, 8)` by which something is found out about a model."""
    return (torch.arange(8, device=model.device)[None] * 7 + 5) % model.config.get_text_config().vocab_size


def text_by_text(model: nn.Module, ids: Tensor, segments: Segments) -> Tensor:
    """The same through a model's own forward: texts of like length side by side, padded on the right.

    What comes after a token is nothing to it in any causal model, whether it attends or remembers. Only where rotations
    depend on how long the longest text is do none but equally long ones go together.
    """
    texts = ids[0].split(segments.lengths)
    hidden: list[Tensor | None] = [None] * len(texts)
    rotary = growing_rotations(model)
    for group in groups(segments.lengths, 1.0, 0) if rotary else groups(segments.lengths):
        for part in rotary:
            forget_length(part)
        batch = nn.utils.rnn.pad_sequence([texts[n] for n in group], batch_first=True)
        real = nn.utils.rnn.pad_sequence([torch.ones_like(texts[n]) for n in group], batch_first=True)
        states = model(input_ids=batch, attention_mask=real, use_cache=False)[0]
        for n, state in zip(group, states, strict=True):
            hidden[n] = state[: segments.lengths[n]]
    return torch.cat(hidden)[None]


def project(x: Tensor, *layers: nn.Module) -> Tensor:
    """What layers that read the same x `(…, in)` say, side by side: one product, of weights cast to the dtype of x."""
    if any(adapted.is_adapted(layer) for layer in layers):
        return adapted.project(x, *layers)
    found = [adapted.parts(layer) for layer in layers]
    bias = adapted.stacked_bias(found)
    weights = [W.to(x.dtype) for W, *_ in found]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


def eager(x: Tensor) -> bool:
    """Whether nothing will fuse what happens to x: on a CPU, outside torch.compile."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm (Zhang and Sennrich 2019) over the last dimension."""
    if eager(x):
        return cpu_kernels.RMSNorm.apply(x, weight, eps)
    return F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of x `(B, T, H, h)`, returned as `(B, H, T, h)`; tables `(T, h)`."""
    if eager(x):
        return cpu_kernels.Rotary.apply(x, cos, sin)
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.chunk(2, dim=-1)[1][:, None], sin.chunk(2, dim=-1)[1][:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).transpose(1, 2)


class Limits(NamedTuple):
    """A token attends to the last `window` ones, itself among them; scores s are capped to cap * tanh(s / cap)."""

    window: int | None = None
    cap: float | None = None


UNLIMITED = Limits()


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, segments: Segments | None = None, limits: Limits = UNLIMITED
) -> Tensor:
    """Causal attention of q `(B, H, T, h)` over k, v `(B, G, T, h)` with H a multiple of G; returns `(B, T, H*h)`.

    With `mask` `(T, T)`, which has the window in it, it is computed by `cpu_kernels`, else by torch's fused kernel; in
    a stream (B = 1) each text by itself.
    """
    if segments is not None:
        return packed_attention(q, k, v, mask, segments, limits)
    if mask is not None and eager(q):
        return cpu_kernels.Attention.apply(q, k, v, mask, limits.cap).flatten(2)
    return causal(q, k, v, limits).transpose(1, 2).flatten(2)


def causal(q: Tensor, k: Tensor, v: Tensor, limits: Limits = UNLIMITED) -> Tensor:
    """Causal attention `(B, H, T, h)` by torch's fused kernels, or its products where scores are capped."""
    T, h = q.shape[2:]
    window = limits.window if limits.window is not None and limits.window < T else None
    shared = q.shape[1] == k.shape[1] or (shares_keys(q) if window is None else q.device.type == "cpu")
    if not shared or limits.cap is not None:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    mask_of = window_mask if torch.compiler.is_compiling() else one_mask
    if limits.cap is not None:
        scores = limits.cap * torch.tanh(q @ k.mT * (h**-0.5 / limits.cap))
        wide = torch.promote_types(q.dtype, torch.float32)
        return (scores + mask_of(T, window or T, q.dtype, q.device)).softmax(-1, dtype=wide).to(q.dtype) @ v
    if window is not None:
        mask = mask_of(T, window, q.dtype, q.device)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def in_window(T: int, window: int, device: torch.device) -> Tensor:
    """Whether a token (row) is less than `window` tokens after another (column) `(T, T)`."""
    at = torch.arange(T, device=device)
    return at[:, None] - at < window


def window_mask(T: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to scores `(T, T)`: -inf after a token and from `window` before it."""
    seen = in_window(T, window, device).tril()
    return torch.zeros(T, T, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)


one_mask = lru_cache(4)(window_mask)  # for all layers, whose backward passes keep it


def shares_keys(q: Tensor) -> bool:
    """Whether a fused kernel takes fewer key heads than query heads: on a GPU only FlashAttention does."""
    return q.device.type == "cpu" or has_flash(q)


def has_flash(q: Tensor) -> bool:
    """Whether FlashAttention (Dao 2024) takes queries like these `(…, h)`: on NVIDIA GPUs since Ampere, in halves."""
    half, h = q.dtype in (torch.bfloat16, torch.float16), q.shape[-1]
    if q.device.type != "cuda" or torch.version.hip or not half or h % 8 or h > 192:
        return False
    return torch.cuda.get_device_capability(q.device) >= (8, 0)


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, segments: Segments, limits: Limits = UNLIMITED
) -> Tensor:
    """The attention of a stream: by `cpu_kernels`, by the kernel for texts of varying length, or, where neither runs,
    texts of similar length side by side."""
    if mask is not None and eager(q):
        return cpu_kernels.PackedAttention.apply(q, k, v, mask, segments.lengths, limits.cap).flatten(2)
    if has_flash(q) and limits.cap is None:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        bounds, longest = segments.bounds, segments.longest
        before = -1 if limits.window is None else limits.window - 1
        y = varlen_attn(
            q, k, v, bounds, bounds, longest, longest, window_size=(before, 0), enable_gqa=q.shape[1] != k.shape[1]
        )
        return y.flatten(1)[None]
    _, H, N, h = q.shape
    q, k, v = (x.reshape(k.shape[1], -1, N, h) for x in (q, k, v))
    y = torch.empty_like(q)
    for batch in cpu_kernels.side_by_side(tuple(segments.lengths), q.device):
        batch.put(causal(batch.take(q), batch.take(k), batch.take(v), limits), y)
    return y.view(1, H, N, h).transpose(1, 2).flatten(2)


def glu(x: Tensor, activation: str) -> Tensor:
    """activation(gate) * up of gate and up `(..., 2M)` side by side."""
    if eager(x):
        return cpu_kernels.GLU.apply(x, activation)
    gate, up = x.chunk(2, dim=-1)
    return cpu_kernels.ACTIVATIONS[activation](gate) * up


def training_operations(dtype: torch.dtype, apart: bool = False) -> Operations:
    """Differentiable operations on activations of `dtype`: weights are cast where they are used. Of layers that read
    the same input, one matrix is made, or `apart` a product each."""

    def linear(*layers: nn.Module):
        if apart:
            return lambda x: torch.cat([project(x, layer) for layer in layers], dim=-1)
        return lambda x: project(x, *layers)

    def norm(layer: nn.Module, eps: float, offset: float):
        return lambda x: rms_norm(x, layer.weight + offset if offset else layer.weight, eps)

    def layer_norm(layer: nn.Module):
        return lambda x: F.layer_norm(x, x.shape[-1:], layer.weight.to(dtype), layer.bias.to(dtype), layer.eps)

    return Operations(
        linear=linear,
        rms_norm=norm,
        layer_norm=layer_norm,
        glu=lambda activation: lambda x: glu(x, activation),
        token_rows=lambda table: lambda: token_rows(table),
    )
