"""The decoding forward of Llama, Qwen3 and GPT-2: the module's own weights without the module's own overhead.

A decoding step is hundreds of small operations, and on a CPU the reading of every weight. Here q, k, v and gate, up are
multiplied as one matrix each; query heads that share a key head form one query block, so grouped keys are never
repeated; queries and keys are rotated together; weights are prepacked in the layout that oneDNN reads fastest
(`weight_prepacking.py`); LoRA adds its two small products (`nn/lora_linear.py`). Any other architecture, anything
quantized, hooked or adapted otherwise uses its own forward. `tests/inference` compares both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from jupyter_gpt.inference.kv_cache import KVCache
from jupyter_gpt.nn.lora_linear import (
    TOKEN_ROW_LAYERS,
    add_lora,
    base_layer,
    embed,
    is_adapter_parameter,
    is_plain_lora,
    snapshot,
    unwrapped,
)
from jupyter_gpt.nn.modules import base_of, is_known_architecture

Linear = Callable[[Tensor], Tensor]
MASKED_KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass
class Block:
    """One layer as functions of `(…, D)`."""

    norm1: Linear
    qkv: Linear
    qk_norm: Callable | None
    out: Linear
    norm2: Linear
    mlp: Linear


@dataclass
class DecodeForward:
    """A model as functions; `heads` query heads share `groups` key heads of width `width`."""

    heads: int
    groups: int
    width: int
    embed: Callable[[Tensor, Tensor], Tensor]  # ids and positions (B, t) to (B, t, D)
    angles: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    blocks: list[Block]
    norm: Linear
    head: Linear
    dtype: torch.dtype

    @torch.inference_mode()
    def __call__(
        self, ids: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, keep: int, adapters: list | None = None
    ) -> Tensor:
        """fp32 logits `(B, keep, V)` after the last `keep` of the new tokens `(B, t)`, whose columns `cache` has."""
        masked = not cache.unmasked or 1 < ids.shape[1] < mask.shape[1]
        bias = additive(mask, ids.shape[1], self.dtype) if masked else None
        return self.run(ids, positions, bias, cache.update, keep)

    def run(self, ids: Tensor, positions: Tensor, bias: Tensor | None, update: Callable, keep: int) -> Tensor:
        """The pass itself; `update(k, v, layer)` stores the new columns and returns all columns to attend to.

        With a mask cuDNN's attention is ruled out, which torch prefers on an H100: it builds a plan for each new number
        of columns, and may find none for a mask that is the same for all queries.
        """
        masked_on_gpu = bias is not None and ids.device.type == "cuda"
        with sdpa_kernel(MASKED_KERNELS) if masked_on_gpu else nullcontext():
            return self.layers(ids, positions, bias, update, keep)

    def layers(self, ids: Tensor, positions: Tensor, bias: Tensor | None, update: Callable, keep: int) -> Tensor:
        B, t = ids.shape
        H, G, h = self.heads, self.groups, self.width
        x = self.embed(ids, positions)
        cos_sin = self.angles(x, positions) if self.angles else None
        for number, block in enumerate(self.blocks):
            qkv = block.qkv(block.norm1(x)).view(B, t, H + 2 * G, h)
            qk, v = qkv[:, :, : H + G], qkv[:, :, H + G :]
            if block.qk_norm:
                qk = block.qk_norm(qk)
            if cos_sin:
                qk = torch.addcmul(qk * cos_sin[0], qk.roll(h // 2, dims=-1), cos_sin[1])
            k, v = update(qk[:, :, H:].transpose(1, 2), v.transpose(1, 2), number)
            x = x + block.out(attend(qk[:, :, :H], k, v, bias))
            x = x + block.mlp(block.norm2(x))
        return self.head(self.norm(x[:, -keep:])).float()


def additive(mask: Tensor, t: int, dtype: torch.dtype) -> Tensor:
    """The additive mask `(B, 1, t, columns)`: -inf on invalid columns and on those after the query's own.

    A query attends to its own column even where that is padding: with nothing to attend to its output might be NaN, and
    a NaN among the values reaches every row of the next layer, masked or not.
    """
    columns = mask.shape[1]
    bias = torch.zeros(len(mask), 1, t, columns, dtype=dtype, device=mask.device)
    if t > 1:
        at = torch.arange(columns, device=mask.device)
        bias.masked_fill_(at > at[-t:, None], float("-inf"))
    bias.masked_fill_(~mask[:, None, None], float("-inf"))
    bias.diagonal(columns - t, dim1=-2, dim2=-1).zero_()
    return bias


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of queries `(B, t, H, h)` over keys and values `(B, G, columns, h)`: `(B, t, H*h)`."""
    B, t, H, h = q.shape
    G = k.shape[1]
    if t == 1:  # the H / G heads of a group are its queries: no key is repeated
        y = F.scaled_dot_product_attention(q.reshape(B, G, H // G, h), k, v, attn_mask=bias)
        return y.reshape(B, 1, H * h)
    q = q.transpose(1, 2)
    if H != G:
        k, v = (x.repeat_interleave(H // G, dim=1) for x in (k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
    return y.transpose(1, 2).reshape(B, t, H * h)


def decode_forward(module: nn.Module, linear: Callable[..., Linear]) -> DecodeForward | None:
    """The decoding forward of a module, with or without LoRA; None where only its own forward is right.

    `linear(weights, biases)` makes the function that multiplies by weights `(out, in)`, stacked over their outputs.
    """
    module = base_of(module)
    kind = type(module).__name__
    build = {"LlamaForCausalLM": rotary, "Qwen3ForCausalLM": rotary, "GPT2LMHeadModel": gpt2}.get(kind)
    return build(module, linear) if build and is_known_architecture(module) and plain(module) else None


def plain(module: nn.Module) -> bool:
    """Whether every part is transformers' own or plain LoRA: no quantized layer, no hook, one dtype and device."""
    parts = [m for m in module.modules() if not is_plain_lora(m) and type(m).__name__ not in TOKEN_ROW_LAYERS]
    weights = {(p.dtype, p.device) for name, p in module.named_parameters() if not is_adapter_parameter(name)}
    known = ("torch.nn.modules.", "transformers.")
    return (
        len(weights) == 1
        and weights.pop()[0] in (torch.float32, torch.bfloat16, torch.float16)
        and all(type(part).__module__.startswith(known) for part in parts)
        and not any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    )


def rotary(module: nn.Module, linear) -> DecodeForward:
    """Llama (Touvron et al. 2023) and Qwen3, which adds a norm on queries and keys; rotary positions (Su et al.
    2021)."""
    model, config = module.model, module.config
    attention = model.layers[0].self_attn
    h, groups = attention.head_dim, base_layer(attention.k_proj).out_features // attention.head_dim
    heads = base_layer(attention.q_proj).out_features // h

    def norm(layer: nn.Module) -> Linear:
        return partial(F.rms_norm, normalized_shape=layer.weight.shape, weight=layer.weight, eps=config.rms_norm_eps)

    def angles(x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = model.rotary_emb(x, positions)
        sin[..., : h // 2].neg_()
        return cos[:, :, None], sin[:, :, None]

    def qk_norm(att: nn.Module) -> Callable | None:
        if not hasattr(att, "q_norm"):
            return None
        q_norm, k_norm = norm(att.q_norm), norm(att.k_norm)
        return lambda qk: torch.cat([q_norm(qk[:, :, :heads]), k_norm(qk[:, :, heads:])], dim=2)

    def gated(mlp: nn.Module) -> Linear:
        both, down = joined(linear, mlp.gate_proj, mlp.up_proj), joined(linear, mlp.down_proj)

        def forward(x: Tensor) -> Tensor:
            gate, up = both(x).chunk(2, dim=-1)
            return down(F.silu(gate).mul_(up))

        return forward

    blocks = [
        Block(
            norm(block.input_layernorm),
            joined(linear, block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj),
            qk_norm(block.self_attn),
            joined(linear, block.self_attn.o_proj),
            norm(block.post_attention_layernorm),
            gated(block.mlp),
        )
        for block in model.layers
    ]
    table, own = unwrapped(model.embed_tokens).weight, snapshot(model.embed_tokens)
    return DecodeForward(
        heads,
        groups,
        h,
        lambda ids, _: embed(ids, table, own),
        angles,
        blocks,
        norm(model.norm),
        head_of(linear, module.lm_head),
        table.dtype,
    )


def gpt2(module: nn.Module, linear) -> DecodeForward:
    """GPT-2 (Radford et al. 2019). Its Conv1D layers hold their weights transposed, `(in, out)`."""
    model, config = module.transformer, module.config

    def norm(layer: nn.LayerNorm) -> Linear:
        return partial(
            F.layer_norm, normalized_shape=layer.weight.shape, weight=layer.weight, bias=layer.bias, eps=layer.eps
        )

    def conv(layer: nn.Module) -> Linear:
        base = base_layer(layer)
        return add_lora(linear([base.weight.t()], [base.bias]), [layer], [base.weight.shape[1]])

    def mlp(part: nn.Module) -> Linear:
        up, down = conv(part.c_fc), conv(part.c_proj)
        return lambda x: down(F.gelu(up(x), approximate="tanh"))

    blocks = [
        Block(norm(b.ln_1), conv(b.attn.c_attn), None, conv(b.attn.c_proj), norm(b.ln_2), mlp(b.mlp)) for b in model.h
    ]
    tokens, own, places = unwrapped(model.wte).weight, snapshot(model.wte), model.wpe.weight
    return DecodeForward(
        config.n_head,
        config.n_head,
        config.n_embd // config.n_head,
        lambda ids, positions: embed(ids, tokens, own) + F.embedding(positions, places),
        None,
        blocks,
        norm(model.ln_f),
        head_of(linear, module.lm_head),
        tokens.dtype,
    )


def joined(linear: Callable[..., Linear], *layers: nn.Linear) -> Linear:
    """Layers that read the same input as one function, their adapters included."""
    bases = [base_layer(layer) for layer in layers]
    multiply = linear([base.weight for base in bases], [base.bias for base in bases])
    return add_lora(multiply, layers, [len(base.weight) for base in bases])


def head_of(linear: Callable[..., Linear], layer: nn.Module) -> Linear:
    """The output head, with the logits of an adapter's own token rows in place of the base's."""
    multiply, own = joined(linear, unwrapped(layer)), snapshot(layer)
    return multiply if own is None else lambda x: multiply(x).index_copy_(-1, own.ids, F.linear(x, own.rows))
