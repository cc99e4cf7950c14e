"""The training forward: the same function as transformers' Llama, Qwen3 and GPT-2, written to be fast.

The parameters stay those of the transformers module, so saving, sampling and evaluating need no conversion; only
the path from token ids to hidden states is our own. Notable: fp32 weights cast once where they are used (no autocast
bookkeeping); q, k, v and gate, up multiplied as one matrix; rotary tables made once; fused attention; on a CPU the
gradients of `by_hand.py`. Any other architecture falls back on its own forward under autocast.
`tests/training/test_transformer.py` holds both equal.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jupyter_gpt.training import by_hand
from jupyter_gpt.training.device import keep_freed_memory


class Trunk(nn.Module):
    """Token ids `(B, T)` to the last hidden states `(B, T, D)` of a transformers causal LM, after the final norm.

    `dtype` is that of the activations; the parameters keep theirs. The module is referenced, not registered, so
    `Trunk` has no parameters of its own and a `torch.compile` of it never renames what is saved.
    """

    def __init__(self, model: nn.Module, context: int, dtype: torch.dtype):
        super().__init__()
        object.__setattr__(self, "model", model)
        self.dtype = dtype
        if model.device.type == "cpu":
            keep_freed_memory()
        kind = model.config.model_type
        self.forward_of = {"llama": rotary_trunk, "qwen3": rotary_trunk, "gpt2": gpt2_trunk}.get(kind)
        if kind in ("llama", "qwen3"):
            position = torch.arange(context, device=model.device)[None]
            cos, sin = model.model.rotary_emb(torch.zeros((), device=model.device), position)
            negated, half = sin[0].clone(), sin.shape[-1] // 2  # each table repeats itself after half a head
            negated[:, :half] *= -1
            self.register_buffer("cos", cos[0].to(dtype), persistent=False)
            self.register_buffer("sin", negated.to(dtype), persistent=False)
        if model.device.type == "cpu" and context <= by_hand.LONGEST:
            mask = torch.full((context, context), float("-inf"), dtype=dtype).triu_(1)
            self.register_buffer("mask", mask, persistent=False)
        else:
            self.mask = None

    def mask_of(self, T: int) -> Tensor | None:
        return None if self.mask is None else self.mask[:T, :T]

    def forward(self, ids: Tensor) -> Tensor:
        if self.forward_of is None:
            with torch.autocast(ids.device.type, self.dtype, enabled=self.dtype != torch.float32):
                return self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return self.forward_of(self, ids)


def joined(dtype: torch.dtype, *layers: nn.Linear) -> Tensor:
    """The weights of layers that read the same input, cast and stacked into one matrix `(sum of out, in)`."""
    return torch.cat([layer.weight.to(dtype) for layer in layers])


def eager(x: Tensor) -> bool:
    """Whether nothing will fuse what happens to x: on a CPU, outside torch.compile."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm (Zhang and Sennrich 2019) over the last dimension."""
    if eager(x):
        return by_hand.RMSNorm.apply(x, weight, eps)
    return F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of x `(B, T, H, h)`, returned as `(B, H, T, h)`; tables `(T, h)`."""
    if eager(x):
        return by_hand.Rotary.apply(x, cos, sin)
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.chunk(2, dim=-1)[1][:, None], sin.chunk(2, dim=-1)[1][:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).transpose(1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Causal attention of q `(B, H, T, h)` over k, v `(B, G, T, h)` with H a multiple of G; returns `(B, T, H*h)`.

    `mask` `(T, T)` chooses the products by hand, None torch's fused kernel.
    """
    if mask is not None and eager(q):
        return by_hand.Attention.apply(q, k, v, mask).flatten(2)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
    return y.transpose(1, 2).flatten(2)


def gated(x: Tensor) -> Tensor:
    """SwiGLU of gate and up `(..., 2M)` side by side."""
    if eager(x):
        return by_hand.SwiGLU.apply(x)
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def rotary_trunk(trunk: Trunk, ids: Tensor) -> Tensor:
    """Llama (Touvron et al. 2023) and Qwen3, which adds a norm on queries and keys."""
    model, dtype = trunk.model.model, trunk.dtype
    B, T = ids.shape
    cos, sin, mask = trunk.cos[:T], trunk.sin[:T], trunk.mask_of(T)
    h, norm = model.layers[0].self_attn.head_dim, partial(rms_norm, eps=model.config.rms_norm_eps)
    x = F.embedding(ids, model.embed_tokens.weight).to(dtype)
    for block in model.layers:
        att, mlp = block.self_attn, block.mlp
        y = norm(x, block.input_layernorm.weight)
        qkv = F.linear(y, joined(dtype, att.q_proj, att.k_proj, att.v_proj)).view(B, T, -1, h)
        groups = att.k_proj.out_features // h
        q, k, v = qkv.split([att.q_proj.out_features // h, groups, groups], dim=2)
        if hasattr(att, "q_norm"):
            q, k = norm(q, att.q_norm.weight), norm(k, att.k_norm.weight)
        y = attention(rotate(q, cos, sin), rotate(k, cos, sin), v.transpose(1, 2), mask)
        x = x + F.linear(y, att.o_proj.weight.to(dtype))
        y = norm(x, block.post_attention_layernorm.weight)
        y = gated(F.linear(y, joined(dtype, mlp.gate_proj, mlp.up_proj)))
        x = x + F.linear(y, mlp.down_proj.weight.to(dtype))
    return norm(x, model.norm.weight)


def gpt2_trunk(trunk: Trunk, ids: Tensor) -> Tensor:
    """GPT-2 (Radford et al. 2019). Its Conv1D layers hold their weights transposed, `(in, out)`."""
    model, dtype = trunk.model.transformer, trunk.dtype
    B, T = ids.shape
    heads, mask = model.config.n_head, trunk.mask_of(T)

    def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], layer.weight.to(dtype), layer.bias.to(dtype), layer.eps)

    def conv(layer: nn.Module, x: Tensor) -> Tensor:
        return F.linear(x, layer.weight.to(dtype).t(), layer.bias.to(dtype))

    gelu = partial(F.gelu, approximate="tanh")
    x = (F.embedding(ids, model.wte.weight) + model.wpe.weight[:T]).to(dtype)
    for block in model.h:
        qkv = conv(block.attn.c_attn, norm(block.ln_1, x)).view(B, T, 3 * heads, -1)
        q, k, v = (part.transpose(1, 2) for part in qkv.chunk(3, dim=2))
        x = x + conv(block.attn.c_proj, attention(q, k, v, mask))
        x = x + conv(block.mlp.c_proj, gelu(conv(block.mlp.c_fc, norm(block.ln_2, x))))
    return norm(model.ln_f, x)
