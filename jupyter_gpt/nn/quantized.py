"""Linear layers with 8-bit or 4-bit weights, for sampling on a CPU; activations stay in bf16.

8 bits, a scale for each output: where the processor multiplies 8-bit integers (VNNI, AMX), so do we. A row of x is
written as x = s (127 h + l) with h and l 8-bit integers, 14 bits in all, which is more than bf16 keeps; h and l go
through oneDNN's integer product as two rows. Sums of integers are exact: a row's result does not depend on the rows
beside it. Elsewhere few rows take torch's `_weight_int8pack_mm`, and many a product with dequantised weights.

4 bits, a scale and a zero point in bf16 for each 32 inputs of an output: few rows take torch's
`_weight_int4pack_mm_for_cpu`, many a product with dequantised weights. Weights that had 4 bits before, in groups of 32
as in a GGUF file, keep their codes (`grid_of`).

`tests/nn/test_quantized.py` compares each with a float64 product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jupyter_gpt.nn.devices import cpu_flags

BITS = {"int8": 8, "int4": 4}
GROUP = 32  # inputs that share a scale in 4 bits
LEVELS = 15  # steps between the lowest and the highest of 16 codes
FEW = {"int8": 12, "int4": 40}  # rows up to which torch's kernels are faster than a product with dequantised weights
MANY = 192  # rows up to which integer products are faster than one with dequantised weights
SPLIT = 127  # x = s (SPLIT * h + l)
TINY = torch.finfo(torch.float32).tiny
ON_GRID = 0.06  # of a step: weights this near to a grid were on it before their scale was rounded to 16 bits


# what this machine has


@cache
def has_integer_products() -> bool:
    """Whether oneDNN multiplies 8-bit integers by instructions of this processor. Others may saturate."""
    fast = {"avx512_vnni", "avx_vnni", "amx_int8"} & cpu_flags()
    return bool(fast) and torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_prepack")


@cache
def has_kernels(bits: int) -> bool:
    """Whether torch has a fast kernel of this many bits for the instructions of this processor."""
    name = "_weight_int8pack_mm" if bits == 8 else "_weight_int4pack_mm_for_cpu"
    return hasattr(torch.ops.aten, name) and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype to multiply many rows in: fp32 where bf16 products are emulated."""
    fast = {"avx512_bf16", "amx_bf16"} & cpu_flags() and torch.backends.mkldnn.is_available()
    return x.dtype if fast else torch.float32


# 8 bits


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes `(n, K)` in -127..127 and fp32 scales `(n,)` of fp32 rows."""
    scale = weight.abs().amax(1).div_(127).clamp_(min=TINY)
    return torch.round(weight / scale[:, None]).to(torch.int8), scale


@cache
def smallest() -> Tensor:
    """What is added to a scale, which must not be zero."""
    with torch.inference_mode(False):
        return torch.tensor([TINY])


def split_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `(M, K)` as 8-bit integers `(2M, K)`, first all h and then all l, and scales `(M, 1)`."""
    M, K = x.shape
    scale = torch.add(smallest(), x.abs().amax(-1, keepdim=True), alpha=1 / (SPLIT * SPLIT))
    x = torch.div(x, scale)
    high = x.mul(1 / SPLIT).round_()
    out = x.new_empty(2 * M, K, dtype=torch.int8)
    out[:M] = high
    out[M:] = x.add_(high, alpha=-SPLIT).round_()
    return out, scale


class Int8:
    """Weights `(N, K)` in 8 bits: packed for integer products, or else as plain codes. Never changed."""

    name = "int8"

    def __init__(self, codes: Tensor, scale: Tensor):
        self.shape, self.scale = tuple(codes.shape), scale
        self.integer = has_integer_products()
        self.codes = torch.ops.onednn.qlinear_prepack(codes, [2, codes.shape[1]]) if self.integer else codes
        self.zero = torch.zeros(len(codes), dtype=torch.int32) if self.integer else None

    def __deepcopy__(self, memo: dict) -> Int8:
        return self

    @property
    def nbytes(self) -> int:
        return self.shape[0] * (self.shape[1] + 4 + 4 * self.integer)

    def split(self, x: Tensor) -> Tensor:
        """By integer products of the two halves of each number."""
        multiply, (rows, scale) = torch.ops.onednn.qlinear_pointwise.default, split_rows(x)
        y = multiply(rows, 1.0, 0, self.codes, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], "")
        high, low = y.chunk(2)
        return low.add_(high, alpha=SPLIT).mul_(scale).to(x.dtype)

    def few(self, x: Tensor) -> Tensor:
        """By torch's kernel."""
        return torch.ops.aten._weight_int8pack_mm.default(x, self.codes, self.scale.to(x.dtype))

    def many(self, x: Tensor) -> Tensor:
        """By a product with the codes, which bf16 holds exactly."""
        dtype = product_dtype(x)
        return (x.to(dtype) @ self.integers_of_weights().to(dtype)).mul_(self.scale).to(x.dtype)

    def integers_of_weights(self) -> Tensor:
        """The codes `(K, N)`; oneDNN's are transposed already."""
        return self.codes.to_dense() if self.integer else self.codes.t()

    def transposed(self, dtype: torch.dtype) -> Tensor:
        """The weights `(K, N)`."""
        return self.integers_of_weights().float().mul_(self.scale).to(dtype)


# 4 bits


def grid_of(groups: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The step between neighbouring codes of each group `(…, 32)`, given its lowest and highest weight.

    (high - low) / 15, except in groups that have had 4 bits before and use fewer of the 16 codes: there it is the step
    that all of their weights are multiples of. Whether weights have had 4 bits is asked of a few groups.
    """
    step = (high - low).div_(LEVELS)
    sample = slice(None, None, max(1, len(step) // 64))
    best = on_grid(groups[sample], low[sample], step[sample])
    for levels in range(LEVELS - 1, LEVELS // 2, -1):
        best |= on_grid(groups[sample], low[sample], (high[sample] - low[sample]) / levels)
    if best.float().mean() < 0.9:
        return step
    left = ~on_grid(groups, low, step)
    for levels in range(LEVELS - 1, 0, -1):
        if not left.any():
            break
        other = ((high - low) / levels)[left]
        fits = on_grid(groups[left], low[left], other)
        where = left.nonzero()[fits]
        step[tuple(where.t())] = other[fits]
        left[tuple(where.t())] = False
    return step


def on_grid(groups: Tensor, low: Tensor, step: Tensor) -> Tensor:
    """Which groups lie on low, low + step, low + 2 step …"""
    place = (groups - low[..., None]) / step.clamp(min=TINY)[..., None]
    return ((place - place.round()).abs() < ON_GRID).all(-1)


def to_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes `(n, K)` in 0..15 as int32, and scales with zero points `(n, K/32, 2)` in bf16, of fp32 rows: a weight is
    (code - 8) * scale + zero."""
    groups = weight.unflatten(1, (-1, GROUP))
    low, high = groups.aminmax(dim=-1)
    step = grid_of(groups, low, high)
    scale = step.clamp(min=TINY).bfloat16()
    zero = (low + 8 * step).bfloat16()
    codes = groups.sub(zero.float()[..., None]).div_(scale.float()[..., None]).round_().add_(8).clamp_(0, 15)
    return codes.to(torch.int32).flatten(1), torch.stack([scale, zero], -1)


def takes_int4(N: int, K: int) -> bool:
    """Whether weights `(N, K)` can be packed in 4 bits."""
    return K % GROUP == 0 and N % 16 == 0


class Int4:
    """Weights `(N, K)` in 4 bits: codes in the layout of torch's kernel, scales with zero points `(K/32, N, 2)`."""

    name = "int4"

    def __init__(self, packed: Sequence[Tensor], scales: Sequence[Tensor]):
        """Pieces of consecutive rows, each but the last a multiple of 64 rows."""
        self.packed = torch.cat(list(packed)).contiguous()
        self.scales = torch.cat(list(scales)).transpose(0, 1).contiguous()
        self.shape = (self.scales.shape[1], self.scales.shape[0] * GROUP)

    def __deepcopy__(self, memo: dict) -> Int4:
        return self

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.scales.nbytes

    def few(self, x: Tensor) -> Tensor:
        """By torch's kernel."""
        return torch.ops.aten._weight_int4pack_mm_for_cpu.default(x, self.packed, GROUP, self.scales)

    def transposed(self, dtype: torch.dtype) -> Tensor:
        """The weights `(K, N)`."""
        N, K = self.shape
        layout = layout_here()
        if layout is None:  # as the kernel multiplies the identity
            return self.few(torch.eye(K, dtype=torch.bfloat16)).to(dtype)
        codes = unpacked(self.packed, N, K, layout, dtype).view(K // GROUP, GROUP, N)
        scale, zero = (each.to(dtype).contiguous()[:, None] for each in self.scales.unbind(-1))
        return torch.addcmul(zero, codes, scale).view(K, N)

    def many(self, x: Tensor) -> Tensor:
        """By a product with dequantised weights."""
        dtype = product_dtype(x)
        return (x.to(dtype) @ self.transposed(dtype)).to(x.dtype)


def pack_int4(codes: Tensor) -> Tensor:
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)


def unpacked(packed: Tensor, N: int, K: int, block: int, dtype: torch.dtype) -> Tensor:
    """Codes less 8, `(K, N)`, from torch's layout.

    Rows are packed `block` at a time: a byte has those of row d and of row d + block/2, for one input after another. In
    what is left over, and everywhere with `block` 0, it has those of neighbouring rows.
    """
    flat = packed.flatten().view(torch.int8) ^ -120  # the highest bit of each half: code - 8 as a signed integer
    halves = (flat << 4) >> 4, flat >> 4
    codes = torch.empty(K, N, dtype=dtype)
    whole = N // block * block if block else 0
    if whole:
        out = codes[:, :whole].unflatten(1, (whole // block, 2, block // 2))
        for n, half in enumerate(halves):
            out[:, :, n] = half[: whole * K // 2].view(whole // block, K, block // 2).transpose(0, 1)
    start, tail = whole, N - whole if block else 32
    while start < N:
        width = min(tail, N - start)
        for n, half in enumerate(halves):
            codes[:, start + n : start + width : 2] = half[start * K // 2 : (start + width) * K // 2].view(
                K, width // 2
            )
        start += width
    return codes


@cache
def layout_here() -> int | None:
    """How torch's conversion lays out codes on this processor, found by trying; None if it is none that we know."""
    N, K = 144, GROUP
    codes = (torch.arange(N)[:, None] * 7 + torch.arange(K) * 3) % 16
    packed = pack_int4(codes.to(torch.int32))
    for block in (64, 32, 0):
        if torch.equal(unpacked(packed, N, K, block, torch.float32), codes.t().float() - 8):
            return block
    return None


class Part:
    """Consecutive rows of weights that lie in one piece with those of other layers, which read the same input."""

    def __init__(self, whole: Int8 | Int4, start: int, end: int):
        self.whole, self.start, self.end = whole, start, end
        self.name, self.shape = whole.name, (end - start, whole.shape[1])

    def __deepcopy__(self, memo: dict) -> Part:
        return self

    def transposed(self, dtype: torch.dtype) -> Tensor:
        """The weights `(K, N)`."""
        return self.whole.transposed(dtype)[:, self.start : self.end]


def parts_of(whole: Int8 | Int4, sizes: Sequence[int]) -> list[Part]:
    """One part for each of `sizes`, in order."""
    ends = list(accumulate(sizes))
    return [Part(whole, end - size, end) for size, end in zip(sizes, ends, strict=True)]


# the layers

Weights = Int8 | Int4 | Part


def rows_of(x: Tensor, weights: Sequence[Weights]) -> Tensor:
    """x `(M, K)` times each of `weights`, side by side, in the dtype of x."""
    found = [product(x, w) for w in together(weights)]
    return found[0] if len(found) == 1 else torch.cat(found, 1)


def together(weights: Sequence[Weights]) -> list[Weights]:
    """The same weights; parts that make up a whole, in order, as that whole."""
    parts = [each for each in weights if isinstance(each, Part)]
    whole = parts[0].whole if len(parts) == len(weights) else None
    bounds = [0, *(part.end for part in parts)]
    adjacent = all(part.whole is whole and part.start == at for part, at in zip(parts, bounds, strict=False))
    return [whole] if whole is not None and adjacent and bounds[-1] == whole.shape[0] else list(weights)


def product(x: Tensor, weights: Weights) -> Tensor:
    """x `(M, K)` times the transposed weights, in the dtype of x, by what is fastest for so many rows."""
    if isinstance(weights, Part):
        return product(x, weights.whole)[:, weights.start : weights.end]
    if isinstance(weights, Int8) and weights.integer:
        return weights.split(x) if len(x) <= MANY else weights.many(x)
    fast = x.dtype == torch.bfloat16 and has_kernels(BITS[weights.name]) and len(x) <= FEW[weights.name]
    return weights.few(x) if fast else weights.many(x)


class QuantizedLinear(nn.Linear):
    """A frozen linear layer with weights in 8 or 4 bits. `weight` dequantises them anew each time."""

    def __init__(self, weights: Weights, bias: nn.Parameter | None):
        nn.Module.__init__(self)
        self.weights = weights
        self.out_features, self.in_features = weights.shape
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:
        """bf16 `(N, K)`."""
        return self.weights.transposed(torch.bfloat16).t()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        return multiplied([self])(x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weights={self.weights.name}"


class QuantizedEmbedding(nn.Embedding):
    """A frozen embedding table with rows in 8 bits, a scale for each. `weight` dequantises all of them."""

    def __init__(self, codes: Tensor, scale: Tensor, padding_idx: int | None):
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = codes.shape
        self.padding_idx, self.max_norm, self.scale_grad_by_freq, self.sparse = padding_idx, None, False, False
        self.norm_type = 2.0
        self._parameters["weight"] = nn.Parameter(
            torch.empty(0, dtype=torch.bfloat16), False
        )  # peft looks for it: a tie
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    @property
    def weight(self) -> Tensor:
        """bf16 `(V, D)`."""
        return (self.codes * self.scale[:, None]).bfloat16()

    def forward(self, ids: Tensor) -> Tensor:
        return (self.codes[ids] * self.scale[ids][..., None]).bfloat16()


def multiplied(layers: Sequence[nn.Module]) -> Callable[[Tensor], Tensor]:
    """The function of x `(…, K)` to the outputs of layers that read it, some of them quantised, side by side."""
    weights = [layer.weights for layer in layers if isinstance(layer, QuantizedLinear)]
    if len(weights) < len(layers):
        return lambda x: torch.cat([layer(x) for layer in layers], -1)
    whole, bias = together(weights), None
    multiply = partial(product, weights=whole[0]) if len(whole) == 1 else partial(rows_of, weights=whole)
    if any(layer.bias is not None for layer in layers):
        biases = [torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach() for layer in layers]
        bias = torch.cat([each.bfloat16() for each in biases])

    def forward(x: Tensor) -> Tensor:
        y = multiply(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
        return y if bias is None else y + bias.to(y.dtype)

    return forward


def weights_of(layers: Sequence[nn.Module]) -> Sequence[Tensor]:
    """The weights `(N, K)` of layers that read the same input, each dequantised once in bf16."""
    weights = [layer.weights for layer in layers if isinstance(layer, QuantizedLinear)]
    if len(weights) < len(layers):
        return [layer.weight for layer in layers]
    whole = torch.cat([each.transposed(torch.bfloat16).t() for each in together(weights)])
    return whole.split([layer.out_features for layer in layers])


def is_quantized(layer: nn.Module) -> bool:
    """Whether a layer has weights in 8 or 4 bits."""
    return isinstance(layer, QuantizedLinear | QuantizedEmbedding)


def bytes_of(module: nn.Module) -> int:
    """Of all quantised weights that are no tensors of the module: those of its linear layers."""
    weights = [part.weights for part in module.modules() if isinstance(part, QuantizedLinear)]
    wholes = [each.whole if isinstance(each, Part) else each for each in weights]
    return sum({id(whole): whole.nbytes for whole in wholes}.values())


def format_of(module: nn.Module) -> str | None:
    """int8 or int4 for a module with quantised weights: the fewest bits of a layer; None for any other."""
    names = {part.weights.name for part in module.modules() if isinstance(part, QuantizedLinear)}
    return min(names, key=BITS.__getitem__) if names else None
