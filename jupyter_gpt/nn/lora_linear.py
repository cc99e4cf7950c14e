"""Linear layers with LoRA (Hu et al. 2021): how the training forward and the decoding forward multiply them.

Plain LoRA, W x + s B A x, is written out. In training no gradient of a frozen matrix is ever made; anything else that
peft can put into a layer (DoRA, dropout, several adapters) uses peft's own forward. In decoding the base's product
stays as it is, prepacked or not, and is shared by all adapters; their small matrices are copied when a batch begins, so
a batch samples from the weights as they were then.

peft's `trainable_token_indices` keep rows of the embedding and the head beside their tables, for a few tokens: a base
that was never trained on its chat tokens has no use for their rows, and LoRA leaves both tables frozen. peft copies the
whole table at each forward to put them in; here the table stays where it is and only what these rows decide is
replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jupyter_gpt.nn import cpu_kernels
from jupyter_gpt.nn.quantized import is_quantized

TOKEN_ROW_LAYERS = ("TrainableTokensWrapper", "TrainableTokensLayer", "BufferDict")  # of peft, around a table


def is_adapted(layer: nn.Module) -> bool:
    """Whether peft has put something into the layer."""
    return hasattr(layer, "base_layer")


def is_plain_lora(layer: nn.Module) -> bool:
    """Whether the layer is W x + s B A x with one active adapter: no DoRA, no dropout, nothing merged."""
    if not is_adapted(layer):
        return False
    from peft.tuners.lora import Linear

    names = layer.active_adapters if type(layer) is Linear else []
    return (
        len(names) == 1
        and names[0] in layer.lora_A
        and not layer.merged
        and not layer.disable_adapters
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[names[0]], nn.Identity)
        and layer.lora_B[names[0]].bias is None
        and type(layer.base_layer).__name__ in ("Linear", "Conv1D", "QuantizedLinear")
    )


def base_layer(layer: nn.Module) -> nn.Module:
    """The layer without its adapter."""
    return layer.base_layer if is_adapted(layer) else layer


def is_adapter_parameter(name: str) -> bool:
    """Whether a parameter of a peft model belongs to the adapter, by its name."""
    return ".lora_" in name or ".trainable_tokens_" in name


def parts(layer: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """W `(out, in)`, A `(r, in)`, the scaled B `(out, r)` and the bias of a layer; r is 0 where it has no adapter."""
    base = base_layer(layer)
    weight = base.weight.t() if type(base).__name__ == "Conv1D" else base.weight
    bias = getattr(base, "bias", None)
    if not is_adapted(layer):
        return weight, weight.new_zeros(0, weight.shape[1]), weight.new_zeros(weight.shape[0], 0), bias
    name = layer.active_adapters[0]
    return weight, layer.lora_A[name].weight, layer.lora_B[name].weight * layer.scaling[name], bias


def project(x: Tensor, *layers: nn.Module) -> Tensor:
    """The outputs of layers that read the same x `(…, in)`, concatenated, in the dtype of x."""
    if any(is_adapted(layer) and not is_plain_lora(layer) for layer in layers):
        with torch.autocast(x.device.type, x.dtype, enabled=x.dtype in (torch.bfloat16, torch.float16)):
            return torch.cat([own_forward(layer, x).to(x.dtype) for layer in layers], dim=-1)
    found = [parts(layer) for layer in layers]
    if not torch.compiler.is_compiling() and not any(W.requires_grad for W, *_ in found):  # no copy of W is kept
        y = cpu_kernels.Adapted.apply(x, *(tensor for W, A, B, _ in found for tensor in (W, A, B)))
    else:
        weight = torch.cat([W.to(x.dtype) for W, *_ in found])
        inner = F.linear(x, torch.cat([A.to(x.dtype) for _, A, _, _ in found]))
        y = F.linear(x, weight) + F.linear(inner, torch.block_diag(*(B.to(x.dtype) for _, _, B, _ in found)))
    bias = stacked_bias(found)
    return y if bias is None else y + bias.to(x.dtype)


def own_forward(layer: nn.Module, x: Tensor) -> Tensor:
    """peft's own forward of a layer in the dtype of x. Autocast only casts down to halves: casts up are made here."""
    if x.dtype in (torch.bfloat16, torch.float16):
        return layer(x)
    up = {name: p.to(x.dtype) for name, p in layer.named_parameters() if p.is_floating_point() and p.dtype != x.dtype}
    return torch.func.functional_call(layer, up, (x,)) if up else layer(x)


def stacked_bias(found: list[tuple]) -> Tensor | None:
    """The biases one after another; None where no layer has one."""
    if all(bias is None for *_, bias in found):
        return None
    return torch.cat([W.new_zeros(W.shape[0]) if bias is None else bias for W, _, _, bias in found])


def add_lora(
    multiply: Callable[[Tensor], Tensor], layers: Sequence[nn.Module], outputs: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """`multiply`, which gives the outputs of all `layers` side by side, `outputs` of each, plus what their adapters
    add."""
    adapted = [(n, layer, layer.active_adapters[0]) for n, layer in enumerate(layers) if is_adapted(layer)]
    if not adapted:
        return multiply
    with torch.inference_mode():
        down = torch.cat([layer.lora_A[name].weight for _, layer, name in adapted])
        up = down.new_zeros(sum(outputs), len(down))  # (out, r), zero where an adapter meets another layer's output
        column = 0
        for n, layer, name in adapted:
            b, first = layer.lora_B[name].weight, sum(outputs[:n])
            up[first : first + len(b), column : column + b.shape[1]] = b * layer.scaling[name]
            column += b.shape[1]

    def forward(x: Tensor) -> Tensor:
        y = multiply(x)
        more = F.linear(F.linear(x.to(down.dtype), down), up)
        return y.add_(more) if y.dtype == more.dtype else (y + more).to(y.dtype)

    return forward


class TokenRows(NamedTuple):
    """Rows `(n, D)` in the dtype of their table, and the token ids `(n,)` that they are of."""

    ids: Tensor
    rows: Tensor


def is_wrapped(layer: nn.Module) -> bool:
    """Whether peft keeps rows beside the table of this layer."""
    return hasattr(layer, "token_adapter")


def unwrapped(layer: nn.Module) -> nn.Module:
    """The layer that holds the table itself."""
    return layer.token_adapter.base_layer if is_wrapped(layer) else layer


def token_rows(layer: nn.Module) -> TokenRows | None:
    """The rows that replace the table's own; None if there are none, or the adapter is off or merged."""
    if not is_wrapped(layer):
        return None
    adapter = layer.token_adapter
    names = [name for name in adapter.active_adapters if name in adapter.trainable_tokens_delta]
    if not names or adapter.merged or adapter.disable_adapters:
        return None
    rows = [adapter.trainable_tokens_delta[name] for name in names]
    device, dtype = rows[0].device, torch.bfloat16
    if not is_quantized(adapter.base_layer):
        device, dtype = adapter.base_layer.weight.device, adapter.base_layer.weight.dtype
    rows = [each.to(device, dtype) for each in rows]
    ids = tuple(token for name in names for token in adapter.token_indices[name])
    return TokenRows(tensor_of(ids, device), rows[0] if len(rows) == 1 else torch.cat(rows))


@lru_cache(64)
def tensor_of(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Cached: on a GPU each copy of a list would be waited for."""
    with torch.inference_mode(False):
        return torch.tensor(ids, device=device)


def embed(ids: Tensor, table: nn.Module, own: TokenRows | None) -> Tensor:
    """`F.embedding` of ids `(…)` in a table `(V, D)`, with the adapter's rows in place of the table's."""
    x = table(ids) if is_quantized(table) else F.embedding(ids, table.weight)
    if own is None:
        return x
    hit = ids[..., None] == own.ids
    return torch.where(hit.any(-1, keepdim=True), F.embedding(hit.int().argmax(-1), own.rows), x)


def snapshot(layer: nn.Module) -> TokenRows | None:
    """A copy of the rows as they are now."""
    own = token_rows(layer)
    return own and own._replace(rows=own.rows.detach().clone())
