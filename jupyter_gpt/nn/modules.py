"""What a module is: the model inside an adapter, its context, its memory, and a pass without dropout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

STATIC_ROPE = {"default", "linear", "llama3", "yarn"}  # rope types whose angles depend on the position alone
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


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
