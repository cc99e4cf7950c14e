"""The architectures that the training forward (`nn/transformer.py`) and the decoding forward
(`inference/decode_forward.py`) know: one table of what each has that Llama has not, and one description as functions
that both forwards share. They differ in their `Operations`, their attention and their rotation.

Whatever the table does not know (another architecture, a type of rotary embedding that depends on the length of the
text, rotation of a part of each head, attention to later tokens) goes through transformers' own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jupyter_gpt.nn.cpu_kernels import ACTIVATIONS
from jupyter_gpt.nn.lora_linear import TokenRows, base_layer, embed, unwrapped

STATIC_ROPE = {"default", "linear", "llama3", "yarn"}  # rope types whose angles depend on the position alone
TYPES = ("full_attention", "sliding_attention")  # of layers
Function = Callable[[Tensor], Tensor]
Tables = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # of x, for its dtype, and positions (B, t): cos, sin


class Kind(NamedTuple):
    """What an architecture has that Llama (Touvron et al. 2023) has not.

    norms: RMSNorm before attention and MLP ("pre"), after them ("post"), or both ("sandwich").
    qk_norm: RMSNorm of queries and keys, of each head or of the whole projection.
    sliding: layers that attend to the last `config.sliding_window` tokens: all, or those that `config.layer_types`
        names.
    fused: q, k, v are one matrix, and gate, up.
    gemma: norms multiply by 1 + weight, embeddings by the root of their width.
    score_cap, logit_cap: attention scores, logits s become cap * tanh(s / cap) where the configuration has a cap.
    ropes: a rotary embedding for each type of layer.
    nope: some layers have no positions at all (`config.no_rope_layers`).
    """

    causal_lm: str
    norms: Literal["pre", "post", "sandwich"] = "pre"
    qk_norm: Literal["head", "projection"] | None = None
    sliding: Literal["all", "some"] | None = None
    fused: bool = False
    gemma: bool = False
    score_cap: bool = False
    logit_cap: bool = False
    ropes: bool = False
    nope: bool = False


KINDS = {
    "llama": Kind("LlamaForCausalLM"),
    "qwen2": Kind("Qwen2ForCausalLM", sliding="some"),
    "qwen3": Kind("Qwen3ForCausalLM", qk_norm="head", sliding="some"),
    "mistral": Kind("MistralForCausalLM", sliding="all"),
    "phi3": Kind("Phi3ForCausalLM", sliding="all", fused=True),
    "olmo2": Kind("Olmo2ForCausalLM", norms="post", qk_norm="projection"),
    "smollm3": Kind("SmolLM3ForCausalLM", sliding="some", nope=True),
    "gemma": Kind("GemmaForCausalLM", gemma=True),
    "gemma2": Kind("Gemma2ForCausalLM", norms="sandwich", sliding="some", gemma=True, score_cap=True, logit_cap=True),
    "gemma3_text": Kind(
        "Gemma3ForCausalLM", norms="sandwich", qk_norm="head", sliding="some", gemma=True, logit_cap=True, ropes=True
    ),
}
CAUSAL_LMS = {"GPT2LMHeadModel", *(kind.causal_lm for kind in KINDS.values())}


class Operations(NamedTuple):
    """How the parts of a model are computed.

    linear(*layers): layers that read the same input `(…, in)` as one function to their concatenated outputs.
    rms_norm(layer, eps, offset), layer_norm(layer): a norm over the last dimension; `offset` is added to its weight.
    glu(activation): gate and up `(…, 2M)` side by side to activation(gate) * up `(…, M)`. token_rows(table): returns
    the function that gives an adapter's own rows of an embedding table, or None.
    """

    linear: Callable[..., Function]
    rms_norm: Callable[[nn.Module, float, float], Function]
    layer_norm: Callable[[nn.Module], Function]
    glu: Callable[[str], Function]
    token_rows: Callable[[nn.Module], Callable[[], TokenRows | None]]


@dataclass
class Block:
    """One layer as functions of `(…, D)`: x = x + out(attention(qkv(norm1(x)))), then x = x + mlp(norm2(x)).

    `q_norm` and `k_norm` are functions of heads `(…, H, h)`. A token attends to the last `window` ones, itself among
    them (None: to all); `rope` is the number of the layer's rotary embedding (None: it has none).
    """

    norm1: Function
    qkv: Function
    q_norm: Function | None
    k_norm: Function | None
    out: Function
    norm2: Function
    mlp: Function
    window: int | None = None
    rope: int | None = None


@dataclass
class Architecture:
    """A model without its output head. `heads` query heads share `groups` key heads of width `width`.

    Queries are multiplied by `query_factor` where attention is not scaled by the root of `width`; attention scores and
    logits are capped at `score_cap` and `logit_cap`.
    """

    heads: int
    groups: int
    width: int
    embed: Callable[[Tensor, Tensor | slice], Tensor]  # ids (B, t) and positions to (B, t, D)
    ropes: Sequence[Tables]
    blocks: list[Block]
    norm: Function
    query_factor: float | None = None
    score_cap: float | None = None
    logit_cap: float | None = None

    @property
    def windows(self) -> set[int]:
        """The windows of sliding layers."""
        return {block.window for block in self.blocks if block.window is not None}


def is_known_architecture(module: nn.Module) -> bool:
    """Whether a model has a training forward and a decoding forward of ours: its architecture is in the table, and its
    configuration asks for nothing else."""
    config = module.config
    if getattr(module, "hf_quantizer", None) is not None:
        return False
    if config.model_type == "gpt2":
        odd = config.scale_attn_by_inverse_layer_idx or config.reorder_and_upcast_attn or config.add_cross_attention
        return not odd and config.scale_attn_weights and config.activation_function == "gelu_new"
    kind = KINDS.get(config.model_type)
    if kind is None or activation_of(config) not in ACTIVATIONS or getattr(config, "use_bidirectional_attention", None):
        return False
    types = set(getattr(config, "layer_types", None) or [])
    if types - set(TYPES) or ("sliding_attention" in types and kind.sliding is None):
        return False
    width = module.model.layers[0].self_attn.head_dim
    return all(is_static(rotary, width) for rotary in rotaries(module.model))


def activation_of(config) -> str:
    """The name of the MLP's activation; Gemma 2 and 3 have their own name for it."""
    return getattr(config, "hidden_activation", None) or config.hidden_act


def rotaries(body: nn.Module) -> list[nn.Module]:
    """The modules of rotary embeddings; before transformers 5 Gemma 3 has two."""
    local = getattr(body, "rotary_emb_local", None)
    return [body.rotary_emb] if local is None else [body.rotary_emb, local]


def is_static(rotary: nn.Module, width: int) -> bool:
    """Whether angles depend on the position alone, and all of a head of `width` is rotated."""
    types = getattr(rotary, "rope_type", "default")
    frequencies = [buffer for name, buffer in rotary.named_buffers() if name.endswith("inv_freq")]
    known = set(types.values() if isinstance(types, dict) else [types]) <= STATIC_ROPE
    return known and all(2 * len(each) == width for each in frequencies)


def architecture_of(model: nn.Module, ops: Operations) -> Architecture | None:
    """The description of a transformers model; None for any other architecture."""
    if not is_known_architecture(model):
        return None
    return gpt2(model, ops) if model.config.model_type == "gpt2" else llama(model, ops)


def llama(model: nn.Module, ops: Operations) -> Architecture:
    """Llama, and what the table knows."""
    body, config, kind = model.model, model.config, KINDS[model.config.model_type]
    first, table, rows = body.layers[0].self_attn, unwrapped(body.embed_tokens), ops.token_rows(body.embed_tokens)
    width, outputs = first.head_dim, base_layer(first.o_proj).in_features
    inputs = base_layer(first.qkv_proj if kind.fused else first.k_proj).out_features
    heads, groups = outputs // width, ((inputs - outputs) // 2 if kind.fused else inputs) // width
    types = getattr(config, "layer_types", None) or ["full_attention"] * len(body.layers)

    def norm(layer: nn.Module) -> Function:
        return ops.rms_norm(layer, config.rms_norm_eps, 1.0 if kind.gemma else 0.0)

    def qk_norm(layer: nn.Module) -> Function:
        return over_projection(norm(layer)) if kind.qk_norm == "projection" else norm(layer)

    def embedding(ids: Tensor, positions: Tensor | slice) -> Tensor:
        return embed(ids, table, rows())

    def mlp(layer: nn.Module) -> Function:
        up = ops.linear(layer.gate_up_proj) if kind.fused else ops.linear(layer.gate_proj, layer.up_proj)
        down, glu = ops.linear(layer.down_proj), ops.glu(activation_of(config))
        return lambda x: down(glu(up(x)))

    def block(number: int, layer: nn.Module) -> Block:
        att, post = layer.self_attn, kind.norms == "post"
        before_mlp = layer.pre_feedforward_layernorm if kind.norms == "sandwich" else layer.post_attention_layernorm
        qkv = ops.linear(att.qkv_proj) if kind.fused else ops.linear(att.q_proj, att.k_proj, att.v_proj)
        out, after = ops.linear(att.o_proj), mlp(layer.mlp)
        if kind.norms != "pre":
            out = then(out, norm(layer.post_attention_layernorm))
            after = then(after, norm(layer.post_feedforward_layernorm))
        slides = kind.sliding == "all" or (kind.sliding == "some" and types[number] == "sliding_attention")
        return Block(
            same if post else norm(layer.input_layernorm),
            qkv,
            *([qk_norm(att.q_norm), qk_norm(att.k_norm)] if kind.qk_norm else [None, None]),
            out,
            same if post else norm(before_mlp),
            after,
            config.sliding_window if slides else None,
            None if kind.nope and not config.no_rope_layers[number] else int(kind.ropes and slides),
        )

    return Architecture(
        heads=heads,
        groups=groups,
        width=width,
        embed=scaled(config.hidden_size**0.5, embedding) if kind.gemma else embedding,
        ropes=[partial(tables, *each) for each in ropes(body, kind, types)],
        blocks=[block(number, layer) for number, layer in enumerate(body.layers)],
        norm=norm(body.norm),
        query_factor=None if first.scaling == width**-0.5 else first.scaling * width**0.5,
        score_cap=config.attn_logit_softcapping if kind.score_cap else None,
        logit_cap=config.final_logit_softcapping if kind.logit_cap else None,
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
        ropes=[],
        blocks=[block(layer) for layer in body.h],
        norm=ops.layer_norm(body.ln_f),
    )


def same(x: Tensor) -> Tensor:
    return x


def then(first: Function, second: Function) -> Function:
    return lambda x: second(first(x))


def over_projection(norm: Function) -> Function:
    """A norm over all heads `(…, H, h)` together."""
    return lambda x: norm(x.flatten(-2)).view(x.shape)


def scaled(factor: float, embedding: Callable) -> Callable:
    """Embeddings times `factor`, which is rounded to their dtype."""
    return lambda ids, positions: (x := embedding(ids, positions)) * torch.tensor(factor, dtype=x.dtype).item()


def ropes(body: nn.Module, kind: Kind, types: list[str]) -> list[tuple[nn.Module, dict[str, str]]]:
    """The rotary embeddings of full attention and, where it has its own, of sliding attention, with the options of
    their forward."""
    modules = rotaries(body)
    if not kind.ropes or len(modules) == 2:
        return [(module, {}) for module in modules]
    return [(body.rotary_emb, {"layer_type": name if name in types else types[0]}) for name in TYPES]


def tables(rotary: nn.Module, options: dict[str, str], x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(B, t, h)` in the dtype of x; OLMo 2's come in fp32."""
    cos, sin = rotary(x, positions, **options)
    return cos.to(x.dtype), sin.to(x.dtype)
