"""The training forward: the same function as transformers' Llama, Qwen3 and GPT-2, written to be fast.

The parameters stay those of the transformers module, so saving, sampling and evaluating need no conversion; only
the path from token ids to hidden states is our own. Notable: fp32 weights cast once where they are used (no autocast
bookkeeping); q, k, v and gate, up multiplied as one matrix; rotary tables made once; fused attention. Any other
architecture falls back on its own forward under autocast. `tests/training/test_transformer.py` holds both equal.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Trunk(nn.Module):
    """Token ids `(B, T)` to the last hidden states `(B, T, D)` of a transformers causal LM, after the final norm.

    `dtype` is that of the activations; the parameters keep theirs. The module is referenced, not registered, so
    `Trunk` has no parameters of its own and a `torch.compile` of it never renames what is saved.
    """

    def __init__(self, model: nn.Module, context: int, dtype: torch.dtype):
        super().__init__()
        object.__setattr__(self, "model", model)
        self.dtype = dtype
        kind = model.config.model_type
        self.forward_of = {"llama": rotary_trunk, "qwen3": rotary_trunk, "gpt2": gpt2_trunk}.get(kind)
        if kind in ("llama", "qwen3"):
            position = torch.arange(context, device=model.device)[None]
            cos, sin = model.model.rotary_emb(torch.zeros((), device=model.device), position)
            half = cos.shape[-1] // 2  # the second half of the table repeats the first
            self.register_buffer("cos", cos[0, :, None, :half].to(dtype), persistent=False)
            self.register_buffer("sin", sin[0, :, None, :half].to(dtype), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        if self.forward_of is None:
            with torch.autocast(ids.device.type, self.dtype, enabled=self.dtype != torch.float32):
                return self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return self.forward_of(self, ids)


def joined(dtype: torch.dtype, *layers: nn.Linear) -> Tensor:
    """The weights of layers that read the same input, cast and stacked into one matrix `(sum of out, in)`."""
    return torch.cat([layer.weight.to(dtype) for layer in layers])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of x `(B, T, H, h)`; tables `(T, 1, h/2)`."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of q `(B, T, H, h)` over k, v `(B, T, G, h)` with H a multiple of G; returns `(B, T, H*h)`."""
    grouped = q.shape[2] != k.shape[2]
    y = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=grouped
    )
    return y.transpose(1, 2).flatten(2)


def rotary_trunk(trunk: Trunk, ids: Tensor) -> Tensor:
    """Llama (Touvron et al. 2023) and Qwen3, which adds a norm on queries and keys."""
    model, dtype = trunk.model.model, trunk.dtype
    B, T = ids.shape
    cos, sin = trunk.cos[:T], trunk.sin[:T]
    eps, h = model.config.rms_norm_eps, model.layers[0].self_attn.head_dim

    def norm(layer: nn.Module, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], layer.weight.to(dtype), eps)

    x = F.embedding(ids, model.embed_tokens.weight).to(dtype)
    for block in model.layers:
        att, mlp = block.self_attn, block.mlp
        y = norm(block.input_layernorm, x)
        qkv = F.linear(y, joined(dtype, att.q_proj, att.k_proj, att.v_proj)).view(B, T, -1, h)
        groups = att.k_proj.out_features // h
        q, k, v = qkv.split([att.q_proj.out_features // h, groups, groups], dim=2)
        if hasattr(att, "q_norm"):
            q, k = norm(att.q_norm, q), norm(att.k_norm, k)
        y = attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = x + F.linear(y, att.o_proj.weight.to(dtype))
        y = norm(block.post_attention_layernorm, x)
        gate, up = F.linear(y, joined(dtype, mlp.gate_proj, mlp.up_proj)).chunk(2, dim=-1)
        x = x + F.linear(F.silu(gate) * up, mlp.down_proj.weight.to(dtype))
    return norm(model.norm, x)


def gpt2_trunk(trunk: Trunk, ids: Tensor) -> Tensor:
    """GPT-2 (Radford et al. 2019). Its Conv1D layers hold their weights transposed, `(in, out)`."""
    model, dtype = trunk.model.transformer, trunk.dtype
    B, T = ids.shape
    heads = model.config.n_head

    def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], layer.weight.to(dtype), layer.bias.to(dtype), layer.eps)

    def conv(layer: nn.Module, x: Tensor) -> Tensor:
        return F.linear(x, layer.weight.to(dtype).t(), layer.bias.to(dtype))

    gelu = partial(F.gelu, approximate="tanh")
    x = (F.embedding(ids, model.wte.weight) + model.wpe.weight[:T]).to(dtype)
    for block in model.h:
        qkv = conv(block.attn.c_attn, norm(block.ln_1, x)).view(B, T, 3 * heads, -1)
        x = x + conv(block.attn.c_proj, attention(*qkv.chunk(3, dim=2)))
        x = x + conv(block.mlp.c_proj, gelu(conv(block.mlp.c_fc, norm(block.ln_2, x))))
    return norm(model.ln_f, x)
