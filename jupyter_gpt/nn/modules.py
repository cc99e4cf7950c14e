"""What a module of transformers is: the model inside an adapter, its context, what it remembers of a text, which of its
parameters are trained.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from jupyter_gpt.errors import GPTError

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


def growing_rotations(module: nn.Module) -> list[nn.Module]:
    """The rotary embeddings of a model that depend on how long the text is: texts of other lengths beside it would
    change it."""
    return [part for part in module.modules() if getattr(part, "rope_type", None) in ("dynamic", "longrope")]


def forget_length(rotary: nn.Module) -> None:
    """Begin a new text: a dynamic rotary embedding remembers the longest so far."""
    if rotary.rope_type == "dynamic":
        rotary.inv_freq, rotary.max_seq_len_cached = rotary.original_inv_freq, rotary.original_max_seq_len


def keeps_keys_and_values(module: nn.Module) -> bool:
    """Whether all that a model remembers of a text are the keys and values of attention."""
    base = base_of(module)
    config = base.config.get_text_config() if hasattr(base.config, "get_text_config") else base.config
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) <= ATTENTION and not getattr(base, "_is_stateful", False)


def takes_cache(module: nn.Module) -> bool:
    """Whether a model's own forward reads keys and values from a cache; that of GPT-1 does not, and xLSTM has a cache
    of its own kind."""
    parameters = inspect.signature(base_of(module).forward).parameters
    taken = [parameters[name] for name in ("past_key_values", "cache") if name in parameters]
    return any("xLSTMCache" not in str(parameter.annotation) for parameter in taken)


def is_hooked(module: nn.Module) -> bool:
    """Whether a user's code takes part in a module's forward."""
    return any(p._forward_hooks or p._forward_pre_hooks or "forward" in vars(p) for p in module.modules())


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
