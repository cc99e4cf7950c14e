"""The decoding forward of Llama, GPT-2 and their kin: the module's own weights without the module's own overhead.

A decoding step is hundreds of small operations, and on a CPU the reading of every weight. Here q, k, v and gate, up are
multiplied as one matrix each; query heads that share a key head form one query block, so grouped keys are never
repeated; queries and keys are rotated together; LoRA adds its two small products (`nn/lora_linear.py`). Any other
architecture than those of `nn/architectures.py`, anything hooked or adapted otherwise uses its own forward.
`tests/inference` compares both.

Weights are prepacked, copied once into the layout that is multiplied fastest. On a CPU that is oneDNN's: with one row a
step of a 135M Llama in bf16 takes 20 ms of products instead of 36, with sixteen rows in fp32 52 instead of 77, and its
head half the time. On a GPU the matrices that read the same input are stacked, for a step there takes as long as the
number of its kernels. The copy costs the weights' memory once more and a fraction of a second, so it is made after a
few decoding steps, kept with the weights (all adapters of a base share it), and made again when they have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.weak import WeakIdKeyDictionary

from jupyter_gpt.inference.kv_cache import KVCache
from jupyter_gpt.nn import devices
from jupyter_gpt.nn.architectures import CAUSAL_LMS, Architecture, Function, Operations, architecture_of
from jupyter_gpt.nn.cpu_kernels import ACTIVATIONS
from jupyter_gpt.nn.lora_linear import (
    TOKEN_ROW_LAYERS,
    add_lora,
    base_layer,
    is_adapter_parameter,
    is_plain_lora,
    snapshot,
    unwrapped,
)
from jupyter_gpt.nn.modules import base_of
from jupyter_gpt.nn.quantized import format_of, is_quantized, multiplied, weights_of

MASKED_KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
ROWS = 16  # the layout is chosen for this many rows; it serves one and hundreds nearly as well
Biases = dict[int | None, Tensor | None]
PROBES = 61  # numbers of each weight that are compared to find out whether it has changed

_prepacked = WeakIdKeyDictionary()  # first weight of a base -> fingerprint, linear functions


@dataclass
class DecodeForward:
    """A model and its output head as functions."""

    model: Architecture
    head: Function
    dtype: torch.dtype

    @torch.inference_mode()
    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, keep: int) -> Tensor:
        """fp32 logits `(B, keep, V)` after the last `keep` of the new tokens `(B, t)`, whose columns `cache` has."""
        masked, t = not cache.unmasked or 1 < ids.shape[1] < mask.shape[1], ids.shape[1]
        biases: Biases = {None: additive(mask, t, self.dtype) if masked else None}
        for window in self.model.windows:
            seen = in_window(mask, positions, window) if max(cache.positions) > window else None
            biases[window] = biases[None] if seen is None else additive(mask, t, self.dtype, seen)
        return self.run(ids, positions, biases, cache.update, keep)

    def run(self, ids: Tensor, positions: Tensor, biases: Biases, update: Callable, keep: int) -> Tensor:
        """The pass itself; `update(k, v, layer)` stores the new columns and returns all columns to attend to. `biases`
        are the additive masks by the window of a layer.

        With a mask cuDNN's attention is ruled out, which torch prefers on an H100: it builds a plan for each new number
        of columns, and may find none for a mask that is the same for all queries.
        """
        masked_on_gpu = ids.device.type == "cuda" and any(bias is not None for bias in biases.values())
        with sdpa_kernel(MASKED_KERNELS) if masked_on_gpu else nullcontext():
            return self.layers(ids, positions, biases, update, keep)

    def layers(self, ids: Tensor, positions: Tensor, biases: Biases, update: Callable, keep: int) -> Tensor:
        (B, t), model = ids.shape, self.model
        H, G, h = model.heads, model.groups, model.width
        x, tables = model.embed(ids, positions), []
        for rope in model.ropes:
            cos, sin = (table[:, :, None] for table in rope(x, positions))
            sin[..., : h // 2].neg_()
            tables.append((cos, sin))
        for number, block in enumerate(model.blocks):
            qkv = block.qkv(block.norm1(x)).view(B, t, H + 2 * G, h)
            qk, v = qkv.split([H + G, G], 2)
            if block.q_norm is not None:
                qk = torch.cat([block.q_norm(qk[:, :, :H]), block.k_norm(qk[:, :, H:])], dim=2)
            if block.rope is not None:
                cos, sin = tables[block.rope]
                qk = torch.addcmul(qk * cos, qk.roll(h // 2, dims=-1), sin)
            q, k = qk.split([H, G], 2)
            k, v = update(k.transpose(1, 2), v.transpose(1, 2), number)
            if model.query_factor is not None:
                q = q * model.query_factor
            x = x + block.out(attend(q, k, v, biases[block.window], model.score_cap))
            x = x + block.mlp(block.norm2(x))
        logits = self.head(model.norm(x[:, -keep:])).float()
        return logits if model.logit_cap is None else logits.div_(model.logit_cap).tanh_().mul_(model.logit_cap)


def in_window(mask: Tensor, positions: Tensor, window: int) -> Tensor:
    """Whether a valid column is less than `window` tokens before each new token `(B, t, columns)`. Columns may be empty
    between those of a row: tokens are counted."""
    return positions[:, :, None] - (mask.cumsum(1) - 1)[:, None] < window


def additive(mask: Tensor, t: int, dtype: torch.dtype, seen: Tensor | None = None) -> Tensor:
    """The additive mask `(B, 1, t, columns)`: -inf on invalid columns, on those after the query's own, and where `seen`
    `(B, t, columns)` is false.

    A query attends to its own column even where that is padding: with nothing to attend to its output might be NaN, and
    a NaN among the values reaches every row of the next layer, masked or not.
    """
    columns = mask.shape[1]
    bias = torch.zeros(len(mask), 1, t, columns, dtype=dtype, device=mask.device)
    if t > 1:
        at = torch.arange(columns, device=mask.device)
        bias.masked_fill_(at > at[-t:, None], float("-inf"))
    bias.masked_fill_(~mask[:, None, None], float("-inf"))
    if seen is not None:
        bias.masked_fill_(~seen[:, None], float("-inf"))
    bias.diagonal(columns - t, dim1=-2, dim2=-1).zero_()
    return bias


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, cap: float | None = None) -> Tensor:
    """Attention of queries `(B, t, H, h)` over keys and values `(B, G, columns, h)`: `(B, t, H*h)`."""
    B, t, H, h = q.shape
    G = k.shape[1]
    if cap is not None:
        return capped(q, k, v, bias, cap)
    if t == 1 and q.device.type == "cpu" and q.dtype == torch.bfloat16 and H != G:  # as below, 1.4 times as fast
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=bias, enable_gqa=True)
        return y.reshape(B, 1, H * h)
    if t == 1:  # the H / G heads of a group are its queries: no key is repeated
        y = F.scaled_dot_product_attention(q.reshape(B, G, H // G, h), k, v, attn_mask=bias)
        return y.reshape(B, 1, H * h)
    q = q.transpose(1, 2)
    if H != G:
        k, v = (x.repeat_interleave(H // G, dim=1) for x in (k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
    return y.transpose(1, 2).reshape(B, t, H * h)


def capped(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, cap: float) -> Tensor:
    """The same with scores s capped to cap * tanh(s / cap), for which no fused kernel is."""
    (B, t, H, h), G, columns = q.shape, k.shape[1], k.shape[2]
    q = q.transpose(1, 2).reshape(B, G, H // G * t, h)  # the queries of a group, one below another
    scores = (q @ k.mT).mul_(h**-0.5 / cap).tanh_().mul_(cap).view(B, G, H // G, t, columns)
    if bias is not None:
        scores += bias[:, :, None]
    elif t > 1:  # the new columns are all there are
        scores += torch.full((t, t), float("-inf"), dtype=q.dtype, device=q.device).triu_(1)
    p = scores.softmax(-1, dtype=torch.float32).to(q.dtype).flatten(2, 3)
    return (p @ v).view(B, H, t, h).transpose(1, 2).reshape(B, t, H * h)


def decode_forward(module: nn.Module, pack: Callable[..., Function]) -> DecodeForward | None:
    """The decoding forward of a module, with or without LoRA; None where only its own forward is right.

    `pack(weights, biases)` makes the function that multiplies by weights `(out, in)`, stacked over their outputs. Of
    quantised layers only `widened` makes a copy.
    """
    module = base_of(module)
    ops = decoding_operations(pack)
    model = architecture_of(module, ops) if type(module).__name__ in CAUSAL_LMS and plain(module) else None
    return model and DecodeForward(model, head_of(ops.linear, module.lm_head), base_weights(module)[0].dtype)


def plain(module: nn.Module) -> bool:
    """Whether every part is transformers' own, ours in 8 or 4 bits, or plain LoRA: no hook, one dtype and device."""
    own = [m for m in module.modules() if not is_plain_lora(m) and type(m).__name__ not in TOKEN_ROW_LAYERS]
    parts = [part for part in own if not is_quantized(part)]
    weights = {(p.dtype, p.device) for name, p in module.named_parameters() if not is_adapter_parameter(name)}
    known = ("torch.nn.modules.", "transformers.")
    return (
        len(weights) == 1
        and weights.pop()[0] in (torch.float32, torch.bfloat16, torch.float16)
        and all(type(part).__module__.startswith(known) for part in parts)
        and not any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    )


def decoding_operations(pack: Callable[..., Function]) -> Operations:
    """Operations on packed weights; an adapter's small matrices and token rows are copied as they are now."""

    def linear(*layers: nn.Module) -> Function:
        bases = [base_layer(layer) for layer in layers]
        if any(is_quantized(base) for base in bases):
            multiply = widened(bases) if pack is widened else multiplied(bases)
            return add_lora(multiply, layers, [base.out_features for base in bases])
        weights = [base.weight.t() if type(base).__name__ == "Conv1D" else base.weight for base in bases]
        multiply = (packed if pack is widened else pack)(weights, [base.bias for base in bases])
        return add_lora(multiply, layers, [len(weight) for weight in weights])

    def rms_norm(layer: nn.Module, eps: float, offset: float) -> Function:
        shape = layer.weight.shape
        if not offset and layer.weight.device.type == "cpu" and layer.weight.dtype == torch.bfloat16:
            return rms_norm_of_a_row(layer.weight, eps)
        if not offset:
            return partial(F.rms_norm, normalized_shape=shape, weight=layer.weight, eps=eps)
        with torch.inference_mode():
            weight = layer.weight.float() + offset  # half precision has too few digits near 1
        return lambda x: F.rms_norm(x.float(), shape, weight, eps).to(x.dtype)

    def layer_norm(layer: nn.Module) -> Function:
        shape = layer.weight.shape
        return partial(F.layer_norm, normalized_shape=shape, weight=layer.weight, bias=layer.bias, eps=layer.eps)

    def glu(activation: str) -> Function:
        active = ACTIVATIONS[activation]

        def forward(x: Tensor) -> Tensor:
            gate, up = x.chunk(2, dim=-1)
            return active(gate).mul_(up)

        return forward

    def rows(table: nn.Module) -> Callable:
        own = snapshot(table)
        return lambda: own

    return Operations(linear, rms_norm, layer_norm, glu, rows)


def rms_norm_of_a_row(weight: Tensor, eps: float) -> Function:
    """RMSNorm in bf16 on a CPU, where it is eight kernels: of a single row x as the first half of the layer norm of
    (x, -x), whose mean is zero and whose variance is the mean of x squared."""
    shape, n = weight.shape, len(weight)
    with torch.inference_mode():
        twice = torch.cat([weight, weight])

    def forward(x: Tensor) -> Tensor:
        if x.numel() > n:
            return F.rms_norm(x, shape, weight, eps)
        return F.layer_norm(torch.cat([x, -x], -1), twice.shape, twice, None, eps)[..., :n]

    return forward


def head_of(linear: Callable[..., Function], layer: nn.Module) -> Function:
    """The output head, with the logits of an adapter's own token rows in place of the base's."""
    multiply, own = linear(unwrapped(layer)), snapshot(layer)
    return multiply if own is None else lambda x: multiply(x).index_copy_(-1, own.ids, F.linear(x, own.rows))


# prepacked weights


def unpacked(weights: list[Tensor], biases: list[Tensor | None]) -> Function:
    """Multiply by weights `(out, in)` where they are, and concatenate the results."""
    if len(weights) == 1:
        return lambda x: F.linear(x, weights[0], biases[0])
    pairs = list(zip(weights, biases, strict=True))
    return lambda x: torch.cat([F.linear(x, weight, bias) for weight, bias in pairs], dim=-1)


def packed(weights: list[Tensor], biases: list[Tensor | None]) -> Function:
    """The same, with a copy of the weights in oneDNN's layout."""
    with torch.inference_mode():
        weight = torch.cat(weights) if len(weights) > 1 else weights[0].contiguous()
        copy = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        bias = stacked_bias(weights, biases)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, copy, bias, "none", [], "")


def widened(layers: Sequence[nn.Module]) -> Function:
    """Multiply by the weights of quantised layers in bf16 and oneDNN's layout, for batches of many rows."""
    return packed(list(weights_of(layers)), [layer.bias for layer in layers])


def stacked(weights: list[Tensor], biases: list[Tensor | None]) -> Function:
    """The same, with a stacked copy of the weights; a single weight is not copied."""
    if len(weights) == 1:
        return unpacked(weights, biases)
    with torch.inference_mode():
        weight, bias = torch.cat(weights), stacked_bias(weights, biases)
    return lambda x: F.linear(x, weight, bias)


def stacked_bias(weights: list[Tensor], biases: list[Tensor | None]) -> Tensor | None:
    """The biases concatenated, zeros for a missing one; None if all are missing."""
    if all(bias is None for bias in biases):
        return None
    return torch.cat([w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)])


def worth_packing(module: nn.Module) -> bool:
    """Whether this machine has the layout and the memory: the copy may take a quarter of what is free."""
    weight = next(module.parameters())
    needed = sum(p.numel() * p.element_size() for p in module.parameters())
    if weight.device.type == "cuda":
        return needed < devices.free(str(weight.device)) / 4
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False  # without AVX-512 or AVX-NE-CONVERT there is no such layout
    return needed < devices.free("cpu") / 4


def worth_widening(module: nn.Module) -> bool:
    """Whether a module with 4-bit weights may have them in bf16 too while a batch of many rows is decoded: the copy may
    take a quarter of what is free. 8-bit weights are multiplied nearly as fast as they are."""
    if format_of(module) != "int4" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    layers = [part for part in module.modules() if is_quantized(part) and isinstance(part, nn.Linear)]
    return sum(2 * layer.in_features * layer.out_features for layer in layers) < devices.free("cpu") / 4


def base_weights(module: nn.Module) -> list[nn.Parameter]:
    """The weights that are prepacked: all but an adapter's."""
    return [weight for name, weight in module.named_parameters() if not is_adapter_parameter(name)]


@torch.no_grad()
def fingerprint(parameters: Sequence[Tensor]) -> Tensor:
    """A few numbers of every weight, and its address: any training, merging or loading changes them."""
    weights = [weight.detach().flatten() for weight in parameters]
    exact = torch.float32 if weights[0].device.type == "mps" else torch.float64
    sums = torch.stack([w[:: max(1, len(w) // PROBES)].sum(dtype=exact) for w in weights])
    return torch.cat([sums.cpu().double(), torch.tensor([float(w.data_ptr()) for w in weights], dtype=torch.float64)])


def prepacked(module: nn.Module) -> Callable[..., Function] | None:
    """What makes the linear functions of `module` from an earlier copy; None if there is none of these weights."""
    mark, made = _prepacked.get(base_weights(module)[0], (None, None))
    if mark is None:
        return None
    if not torch.equal(mark, fingerprint(base_weights(module))):
        release(module)
        return None
    return cached(module, made)


def prepack(module: nn.Module) -> Callable[..., Function]:
    """What makes the linear functions of `module`; their copies are kept as long as the weights live."""
    made: dict = {}
    _prepacked[base_weights(module)[0]] = (fingerprint(base_weights(module)), made)
    return cached(module, made)


def release(module: nn.Module) -> None:
    """Free the copy of `module`'s weights; the next sampling makes it again."""
    _prepacked.pop(base_weights(module)[0], None)


def cached(module: nn.Module, made: dict) -> Callable[..., Function]:
    """The layout for the device of `module`, making each product once. A single stacked weight is used where it is, and
    not cached: that would keep it alive."""
    layout = stacked if next(module.parameters()).device.type == "cuda" else packed

    def make(weights: list[Tensor], biases: list[Tensor | None]) -> Function:
        if layout is stacked and len(weights) == 1:
            return layout(weights, biases)
        key = tuple(weight.data_ptr() for weight in weights)
        if key not in made:
            made[key] = layout(weights, biases)
        return made[key]

    return make
