"""Linear layers for decoding: weights copied once into the layout that is multiplied fastest.

On a CPU that is oneDNN's: for one row a step of a 135M Llama in bf16 takes 20 ms of products instead of 36,
in fp32 for sixteen rows 52 instead of 77, and its head half the time. On a GPU the matrices that read the
same input become one, for a step there is as long as the number of its kernels. The copy costs memory once
more and a fraction of a second, so it is made after a few steps of decoding, kept with the weights (all
adapters of one base share it), and made anew when they have changed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from jupyter_gpt.inference.decode_lora import is_own
from jupyter_gpt.nn import device_memory as memory

ROWS = 16  # the layout is chosen for this many rows; it serves one and hundreds nearly as well
PROBES = 61  # numbers of each weight that are compared to find out whether it has changed

_kept = WeakIdKeyDictionary()  # of the first weight of a base: its fingerprint, and its products by their weights


def as_they_are(weights: list[Tensor], biases: list[Tensor | None]) -> Callable[[Tensor], Tensor]:
    """Multiply by weights `(out, in)` where they lie, and put the results side by side."""
    if len(weights) == 1:
        return lambda x: F.linear(x, weights[0], biases[0])
    pairs = list(zip(weights, biases, strict=True))
    return lambda x: torch.cat([F.linear(x, weight, bias) for weight, bias in pairs], dim=-1)


def packed(weights: list[Tensor], biases: list[Tensor | None]) -> Callable[[Tensor], Tensor]:
    """The same, with one copy of the weights laid out for oneDNN."""
    with torch.inference_mode():
        joined = torch.cat(weights) if len(weights) > 1 else weights[0].contiguous()
        copy = torch.ops.mkldnn._reorder_linear_weight(joined, ROWS)
        bias = stacked_bias(weights, biases)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, copy, bias, "none", [], "")


def stacked(weights: list[Tensor], biases: list[Tensor | None]) -> Callable[[Tensor], Tensor]:
    """The same, with one copy of the weights, stacked; no copy of one that is alone."""
    if len(weights) == 1:
        return as_they_are(weights, biases)
    with torch.inference_mode():
        weight, bias = torch.cat(weights), stacked_bias(weights, biases)
    return lambda x: F.linear(x, weight, bias)


def stacked_bias(weights: list[Tensor], biases: list[Tensor | None]) -> Tensor | None:
    """The biases one after another, zeros where there is none; None where there is none at all."""
    if all(bias is None for bias in biases):
        return None
    return torch.cat([w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)])


def best(module: nn.Module) -> Callable[..., Callable[[Tensor], Tensor]]:
    """The layout for the device of `module`."""
    return stacked if next(module.parameters()).device.type == "cuda" else packed


def worth_packing(module: nn.Module) -> bool:
    """Whether this machine has the layout and the memory: the copy may take a quarter of what is free."""
    weight = next(module.parameters())
    needed = sum(p.numel() * p.element_size() for p in module.parameters())
    if weight.device.type == "cuda":
        return needed < memory.free(str(weight.device)) / 4
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return needed < memory.free("cpu") / 4


def weights_of(module: nn.Module) -> list[nn.Parameter]:
    """The weights that are laid out: all but an adapter's."""
    return [weight for name, weight in module.named_parameters() if not is_own(name)]


@torch.no_grad()
def fingerprint(module: nn.Module) -> Tensor:
    """A few numbers of every weight, and where it lies: any training, merging or loading changes them."""
    weights = [weight.detach().flatten() for weight in weights_of(module)]
    sums = torch.stack([w[:: max(1, len(w) // PROBES)].double().sum() for w in weights])
    return torch.cat([sums.cpu(), torch.tensor([float(w.data_ptr()) for w in weights], dtype=torch.float64)])


def kept(module: nn.Module) -> Callable | None:
    """What makes the products of `module` from what was laid out before, if the weights are still those it was
    made of.
    """
    mark, made = _kept.get(weights_of(module)[0], (None, None))
    if mark is None:
        return None
    if not torch.equal(mark, fingerprint(module)):
        del _kept[weights_of(module)[0]]
        return None
    return remembering(best(module), made)


def keep(module: nn.Module) -> Callable:
    """What makes the products of `module` and keeps what it lays out as long as the weights live."""
    made: dict = {}
    _kept[weights_of(module)[0]] = (fingerprint(module), made)
    return remembering(best(module), made)


def let_go(module: nn.Module) -> None:
    """Forget what was laid out for `module`, for its memory is wanted; whoever samples from it next lays it out
    again.
    """
    _kept.pop(weights_of(module)[0], None)


def remembering(linear: Callable, made: dict) -> Callable[..., Callable[[Tensor], Tensor]]:
    """`linear`, making each product once. A weight that is used where it lies is not kept: that would keep it alive."""

    def make(weights: list[Tensor], biases: list[Tensor | None]) -> Callable[[Tensor], Tensor]:
        if linear is stacked and len(weights) == 1:
            return linear(weights, biases)
        key = tuple(weight.data_ptr() for weight in weights)
        if key not in made:
            made[key] = linear(weights, biases)
        return made[key]

    return make
