"""Llama, Qwen3 and GPT-2 as functions: the one description that the training forward (`nn/transformer.py`) and the
decoding forward (`inference/decode_forward.py`) share. They differ in their `Operations`, their attention and their
rotation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from jupyter_gpt.nn.lora_linear import TokenRows, base_layer, embed, unwrapped
from jupyter_gpt.nn.modules import is_known_architecture

Function = Callable[[Tensor], Tensor]


class Operations(NamedTuple):
    """How the parts of a model are computed.

    linear(*layers): layers that read the same input `(…, in)` as one function to their concatenated outputs.
    rms_norm(layer, eps), layer_norm(layer): a norm over the last dimension. swiglu: gate and up `(…, 2M)` side by side
    to `(…, M)`. token_rows(table): returns the function that gives an adapter's own rows of an embedding table, or
    None.
    """

    linear: Callable[..., Function]
    rms_norm: Callable[[nn.Module, float], Function]
    layer_norm: Callable[[nn.Module], Function]
    swiglu: Function
    token_rows: Callable[[nn.Module], Callable[[], TokenRows | None]]


@dataclass
class Block:
    """One layer as functions of `(…, D)`: x = x + out(attention(qkv(norm1(x)))), then x = x + mlp(norm2(x))."""

    norm1: Function
    qkv: Function
    q_norm: Function | None
    k_norm: Function | None
    out: Function
    norm2: Function
    mlp: Function


@dataclass
class Architecture:
    """A model without its output head. `heads` query heads share `groups` key heads of width `width`; `rotary` is the
    module of rotary position embeddings, None for learned positions."""

    heads: int
    groups: int
    width: int
    embed: Callable[[Tensor, Tensor | slice], Tensor]  # ids (B, t) and positions to (B, t, D)
    rotary: nn.Module | None
    blocks: list[Block]
    norm: Function


def architecture_of(model: nn.Module, ops: Operations) -> Architecture | None:
    """The description of a transformers model; None for any other architecture."""
    if not is_known_architecture(model):
        return None
    return gpt2(model, ops) if model.config.model_type == "gpt2" else llama(model, ops)


def llama(model: nn.Module, ops: Operations) -> Architecture:
    """Llama (Touvron et al. 2023), and Qwen3, which adds a norm on queries and keys."""
    body, eps = model.model, model.config.rms_norm_eps
    first, table, rows = body.layers[0].self_attn, unwrapped(body.embed_tokens), ops.token_rows(body.embed_tokens)

    def mlp(layer: nn.Module) -> Function:
        up, down = ops.linear(layer.gate_proj, layer.up_proj), ops.linear(layer.down_proj)
        return lambda x: down(ops.swiglu(up(x)))

    def block(layer: nn.Module) -> Block:
        att = layer.self_attn
        norms = [ops.rms_norm(att.q_norm, eps), ops.rms_norm(att.k_norm, eps)] if hasattr(att, "q_norm") else [None] * 2
        return Block(
            ops.rms_norm(layer.input_layernorm, eps),
            ops.linear(att.q_proj, att.k_proj, att.v_proj),
            *norms,
            ops.linear(att.o_proj),
            ops.rms_norm(layer.post_attention_layernorm, eps),
            mlp(layer.mlp),
        )

    return Architecture(
        heads=base_layer(first.q_proj).out_features // first.head_dim,
        groups=base_layer(first.k_proj).out_features // first.head_dim,
        width=first.head_dim,
        embed=lambda ids, positions: embed(ids, table.weight, rows()),
        rotary=body.rotary_emb,
        blocks=[block(layer) for layer in body.layers],
        norm=ops.rms_norm(body.norm, eps),
    )


def gpt2(model: nn.Module, ops: Operations) -> Architecture:
    """GPT-2 (Radford et al. 2019)."""
    body, config = model.transformer, model.config
    table, rows = unwrapped(body.wte), ops.token_rows(body.wte)

    def mlp(layer: nn.Module) -> Function:
        up, down = ops.linear(layer.c_fc), ops.linear(layer.c_proj)
        return lambda x: down(F.gelu(up(x), approximate="tanh"))

    def block(layer: nn.Module) -> Block:
        qkv, out = ops.linear(layer.attn.c_attn), ops.linear(layer.attn.c_proj)
        return Block(ops.layer_norm(layer.ln_1), qkv, None, None, out, ops.layer_norm(layer.ln_2), mlp(layer.mlp))

    return Architecture(
        heads=config.n_head,
        groups=config.n_head,
        width=config.n_embd // config.n_head,
        embed=lambda ids, positions: embed(ids, table.weight, rows()) + body.wpe.weight[positions],
        rotary=None,
        blocks=[block(layer) for layer in body.h],
        norm=ops.layer_norm(body.ln_f),
    )
