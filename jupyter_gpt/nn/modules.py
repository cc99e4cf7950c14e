"""The models of transformers, as the rest of the package reads them.

First what a module is: the model inside an adapter, its context, what it remembers of a text, which of its parameters
are trained. Then Llama, Qwen3 and GPT-2 as functions: the one description that the training forward
(`nn/transformer.py`) and the decoding forward (`inference/decode_forward.py`) share, which differ in their
`Operations`, their attention and their rotation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.lora_linear import TokenRows, base_layer, embed, unwrapped

STATIC_ROPE = {"default", "linear", "llama3", "yarn"}  # rope types whose angles depend on the position alone
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
Function = Callable[[Tensor], Tensor]


def base_of(module: nn.Module) -> nn.Module:
    """The transformers model inside a peft model; any other module as it is."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module


def context_of(module: nn.Module) -> int:
    """The most tokens a prompt and its continuation may have together: with dynamic rope, which turns more slowly the
    longer a text is, the positions that were trained on times its factor."""
    config = base_of(module).config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or -1
    if positions < 0:  # XLNet's name for no limit
        return 1 << 30
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return int(positions * rope["factor"]) if rope.get("rope_type", rope.get("type")) == "dynamic" else positions


def keeps_keys_and_values(module: nn.Module) -> bool:
    """Whether all that a model remembers of a text are the keys and values of attention."""
    base = base_of(module)
    config = base.config.get_text_config() if hasattr(base.config, "get_text_config") else base.config
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) <= ATTENTION and not getattr(base, "_is_stateful", False)


def is_known_architecture(module: nn.Module) -> bool:
    """Whether a model is Llama, Qwen3 or GPT-2 without the extras that their configurations allow: those that have a
    training forward (`nn/transformer.py`) and a decoding forward (`inference/decode_forward.py`) of ours."""
    config = module.config
    if getattr(module, "hf_quantizer", None) is not None:
        return False
    if config.model_type == "gpt2":
        odd = config.scale_attn_by_inverse_layer_idx or config.reorder_and_upcast_attn or config.add_cross_attention
        return not odd and config.scale_attn_weights and config.activation_function == "gelu_new"
    if config.model_type not in ("llama", "qwen3") or config.hidden_act != "silu":
        return False
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or [])
    return not sliding and getattr(module.model.rotary_emb, "rope_type", "default") in STATIC_ROPE


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """The module in eval mode (no dropout), and afterwards as it was; for one pass, never across a yield."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters of a model. Raises GPTError when there is none: such a run would change nothing."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise GPTError("nothing of this model is trainable: the run would leave every weight as it is")
    return parameters


def trained_by_name(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """The trainable parameters of several modules, each under its module's name; as they are where that is "".

    Raises GPTError where a module has none.
    """
    for module in modules.values():
        trained(module)
    return {
        f"{name}.{key}" if name else key: parameter
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def piece(whole: Tensor, like: Tensor) -> Tensor:
    """`whole`, or this rank's rows of it where `like` lies in pieces on all ranks (`sharded.py`)."""
    if not hasattr(like, "placements"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    placed: Any = like
    whole = whole.to(like.device, like.dtype)
    return distribute_tensor(whole, placed.device_mesh, placed.placements, src_data_rank=None)


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
        embed=lambda ids, positions: embed(ids, table, rows()),
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
        embed=lambda ids, positions: embed(ids, table, rows()) + body.wpe.weight[positions],
        rotary=None,
        blocks=[block(layer) for layer in body.h],
        norm=ops.layer_norm(body.ln_f),
    )
