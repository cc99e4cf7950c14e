"""LoRA in the lean forward: what an adapter adds to layers that read the same input, as two small products.

The base's own product stays as it is, packed or not, and is shared by all adapters; only these few numbers are an
adapter's own. They are taken when a batch begins, so a batch samples from the weights as they were then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Linear = Callable[[Tensor], Tensor]


def is_adapter(module: nn.Module) -> bool:
    """Whether it is a peft model."""
    return hasattr(module, "peft_config")


def is_own(name: str) -> bool:
    """Whether a parameter of a peft model is the adapter's, by its name."""
    return ".lora_" in name or ".trainable_tokens_" in name


def is_low_rank(layer: nn.Module) -> bool:
    """Whether a layer is W x + s B A x with one active adapter and nothing else: no DoRA, no dropout, nothing
    merged.
    """
    if not hasattr(layer, "base_layer"):
        return False
    from peft.tuners.lora import Linear as Adapted

    names = layer.active_adapters if type(layer) is Adapted else []
    return (
        len(names) == 1
        and names[0] in layer.lora_A
        and not layer.merged
        and not layer.disable_adapters
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[names[0]], nn.Identity)
        and layer.lora_B[names[0]].bias is None
    )


def base_of(layer: nn.Module) -> nn.Module:
    """The layer without its adapter."""
    return layer.base_layer if hasattr(layer, "base_layer") else layer


def added(multiply: Linear, layers: Sequence[nn.Module], outputs: Sequence[int]) -> Linear:
    """`multiply`, which makes the outputs of all `layers` side by side, `outputs` of each, with what their adapters
    add.
    """
    adapted = [(n, layer) for n, layer in enumerate(layers) if hasattr(layer, "base_layer")]
    if not adapted:
        return multiply
    names = [layer.active_adapters[0] for _, layer in adapted]
    with torch.inference_mode():
        down = torch.cat([layer.lora_A[name].weight for name, (_, layer) in zip(names, adapted, strict=True)])
        up = down.new_zeros(sum(outputs), len(down))  # (out, r), zero where one layer's adapter meets another's output
        column = 0
        for name, (n, layer) in zip(names, adapted, strict=True):
            b, first = layer.lora_B[name].weight, sum(outputs[:n])
            up[first : first + len(b), column : column + b.shape[1]] = b * layer.scaling[name]
            column += b.shape[1]

    def forward(x: Tensor) -> Tensor:
        y = multiply(x)
        more = F.linear(F.linear(x.to(down.dtype), down), up)
        return y.add_(more) if y.dtype == more.dtype else (y + more).to(y.dtype)

    return forward
