"""Parts of the forward with explicit gradients, for a CPU where no compiler fuses the elementwise steps.

Autograd's backward of a norm, a rotation or a gated activation walks the activations a dozen times; these walk them
as often as the formula needs. Bound by memory, the CPU gains that ratio. The attention is plain matrix products and a
softmax, a block of queries at a time: while the scores of a head stay in the cache, faster than torch's tiled kernel,
2.4 times in bf16 and 1.2 times in fp32.
Each Function equals the torch expression named in its docstring; `tests/nn/test_transformer.py` compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from jupyter_gpt.nn.varlen import groups

LONGEST = 512  # positions: beyond, the scores no longer fit and torch's tiled attention is as fast
SHORT = 256  # positions: shorter texts of a stream are worth laying side by side
CPU = torch.device("cpu")
ACTIVATIONS = {"silu": F.silu, "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh")}  # of a gated MLP
BLOCK = 64  # queries at a time: what comes after a block is never multiplied


class RMSNorm(Function):
    """`F.rms_norm(x, x.shape[-1:], weight, eps)` with an fp32 weight `(D,)`; x `(..., D)` of any float dtype."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        low = weight.to(x.dtype)
        ctx.save_for_backward(x, low)
        ctx.eps, ctx.weight_dtype = eps, weight.dtype
        return F.rms_norm(x, x.shape[-1:], low, eps)

    @staticmethod
    def backward(ctx, g: Tensor):
        x, weight = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).square_()
        scale = square.div_(x.shape[-1]).add_(ctx.eps).rsqrt_().to(x.dtype)
        unit = x * scale
        product = g * unit
        d_weight = None
        if ctx.needs_input_grad[1]:  # a frozen base asks for none
            d_weight = product.flatten(0, -2).sum(0, dtype=wide).to(ctx.weight_dtype)
        along = (product @ weight).div_(x.shape[-1]).unsqueeze(-1)
        return (g * weight).addcmul_(unit, along, value=-1).mul_(scale), d_weight, None


class Rotary(Function):
    """Rotary position embedding of x `(B, T, H, h)`, laid out for attention: returns `(B, H, T, h)`, contiguous.

    Tables `(T, h)`: `cos` twice over, and `sin` with its first half negated.
    """

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        x = x.transpose(1, 2).contiguous()
        return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)

    @staticmethod
    def backward(ctx, g: Tensor):
        cos, sin = ctx.saved_tensors  # the inverse rotation
        g = g.contiguous()
        return (g * cos).addcmul_(g.roll(g.shape[-1] // 2, -1), sin, value=-1).transpose(1, 2), None, None


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, y: Tensor, cap: float | None = None
) -> list[Tensor]:
    """Causal attention of q `(n, r, T, h)` over k, v `(n, T, h)`, written to y, shaped as q; the probabilities by
    block.

    `mask` `(T, T)` is -inf above the diagonal and before a window, else 0. The r queries of a group are laid end to end
    as more rows of one product, so that k and v are never repeated. With `cap` scores s become cap * tanh(s / cap).
    """
    r, T, h = q.shape[1:]
    probabilities = []
    for start in range(0, T, BLOCK):
        end = min(start + BLOCK, T)
        q_block, k_block, unseen = q[:, :, start:end].flatten(1, 2), k[:, :end], mask[start:end, :end].repeat(r, 1)
        if cap is None:
            scores = torch.baddbmm(unseen, q_block, k_block.mT, alpha=h**-0.5)
        else:
            scores = bent(q_block, k_block, cap).mul_(cap).add_(unseen)
        p = torch.softmax(scores, dim=-1)
        y[:, :, start:end] = (p @ v[:, :end]).unflatten(1, (r, -1))
        probabilities.append(p)
    return probabilities


def bent(q: Tensor, k: Tensor, cap: float) -> Tensor:
    """tanh(s / cap) of the scores s of q over k."""
    return (q @ k.mT).mul_(q.shape[-1] ** -0.5 / cap).tanh_()


def attention_backward(
    q: Tensor, k: Tensor, v: Tensor, probabilities: list[Tensor], g: Tensor, dq: Tensor, cap: float | None = None
):
    """The gradients of `attention_forward` for g, that of y: dk and dv are returned, dq is written, not yet scaled."""
    r, dk, dv = q.shape[1], None, None
    for p in reversed(probabilities):
        end = p.shape[2]
        start = end - p.shape[1] // r
        q_block, g_block = q[:, :, start:end].flatten(1, 2), g[:, :, start:end].flatten(1, 2)
        d_scores = torch._softmax_backward_data(g_block @ v[:, :end].mT, p, -1, p.dtype)
        if cap is not None:
            d_scores = d_scores.mul_(1 - bent(q_block, k[:, :end], cap).square_())
        dq[:, :, start:end] = (d_scores @ k[:, :end]).unflatten(1, (r, -1))
        dk_part, dv_part = d_scores.mT @ q_block, p.mT @ g_block
        if dk is None:  # the last block reaches all keys
            dk, dv = dk_part, dv_part
        else:
            dk[:, :end] += dk_part
            dv[:, :end] += dv_part
    return dk, dv


class Attention(Function):
    """Causal softmax attention of q `(B, H, T, h)` over k, v `(B, G, T, h)` with H a multiple of G: `(B, T, H, h)`."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, cap: float | None = None) -> Tensor:
        B, H, T, h = q.shape
        G = k.shape[1]
        q, k, v = q.reshape(B * G, H // G, T, h), k.reshape(B * G, T, h), v.reshape(B * G, T, h)
        y, ctx.cap = torch.empty_like(q), cap
        ctx.save_for_backward(q, k, v, *attention_forward(q, k, v, mask, y, cap))
        return y.view(B, H, T, h).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx, g: Tensor):
        q, k, v, *probabilities = ctx.saved_tensors
        B, T, H, h = g.shape
        g = g.transpose(1, 2).reshape(q.shape)
        dq = torch.empty_like(q)
        dk, dv = attention_backward(q, k, v, probabilities, g, dq, ctx.cap)
        dq, dk = dq.mul_(h**-0.5), dk.mul_(h**-0.5)
        return dq.view(B, H, T, h), dk.view(B, -1, T, h), dv.view(B, -1, T, h), None, None


class PackedAttention(Function):
    """The same of texts laid end to end, each among itself: q `(1, H, N, h)`, k and v `(1, G, N, h)`; `(1, N, H, h)`.

    `lengths` are those of the texts, N together. Equals `Attention` of each text by itself. Short texts of like length
    go side by side, padded at their end: what comes after a token is nothing to it.
    """

    @staticmethod
    def forward(
        ctx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, lengths: list[int], cap: float | None = None
    ) -> Tensor:
        _, H, N, h = q.shape
        G = k.shape[1]
        q, k, v = q.reshape(G, H // G, N, h), k.reshape(G, 1, N, h), v.reshape(G, 1, N, h)
        y, probabilities = torch.empty_like(q), []
        ctx.batches, ctx.cap = side_by_side(tuple(lengths)), cap
        for batch in ctx.batches:
            q_part = batch.take(q)
            y_part = torch.empty_like(q_part)
            T = batch.shape[1]
            found = attention_forward(q_part, batch.take(k)[:, 0], batch.take(v)[:, 0], mask[:T, :T], y_part, cap)
            batch.put(y_part, y)
            probabilities += found
        ctx.save_for_backward(q, k, v, *probabilities)
        return y.view(1, H, N, h).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx, g: Tensor):
        q, k, v, *probabilities = ctx.saved_tensors
        _, N, H, h = g.shape
        g = g.transpose(1, 2).reshape(q.shape)
        dq, dk, dv, used = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), 0
        for batch in ctx.batches:
            blocks, q_part = -(-batch.shape[1] // BLOCK), batch.take(q)
            dq_part = torch.empty_like(q_part)
            dk_part, dv_part = attention_backward(
                q_part,
                batch.take(k)[:, 0],
                batch.take(v)[:, 0],
                probabilities[used : used + blocks],
                batch.take(g, blank=True),
                dq_part,
                ctx.cap,
            )
            used += blocks
            for part, whole in ((dq_part, dq), (dk_part[:, None], dk), (dv_part[:, None], dv)):
                batch.put(part, whole)
        dq, dk = dq.mul_(h**-0.5), dk.mul_(h**-0.5)
        return dq.view(1, H, N, h), dk.view(1, -1, N, h), dv.view(1, -1, N, h), None, None, None


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Texts of a stream as a batch: `shape` (n, T), T the longest of them.

    `cells` `(n*T,)` are the tokens of the stream in it, a text's last one repeated as padding; `real` the cells that
    are not padding, None if all are. A single text is a `slice` of the stream instead.
    """

    shape: tuple[int, int]
    cells: Tensor | slice
    real: Tensor | None = None
    padding: Tensor | None = None

    def take(self, x: Tensor, blank: bool = False) -> Tensor:
        """x `(G, r, N, h)` as `(G*n, r, T, h)`; `blank` makes the padding 0."""
        if isinstance(self.cells, slice):
            return x[:, :, self.cells]
        part = x.index_select(2, self.cells)
        if blank and self.padding is not None:
            part.index_fill_(2, self.padding, 0)
        return part.unflatten(2, self.shape).transpose(1, 2).flatten(0, 1)

    def put(self, part: Tensor, x: Tensor):
        """The reverse: the real cells of `(G*n, r, T, h)` into x `(G, r, N, h)`."""
        if isinstance(self.cells, slice):
            x[:, :, self.cells] = part
            return
        part = part.unflatten(0, (-1, self.shape[0])).transpose(1, 2).flatten(2, 3)
        if self.real is None:
            x.index_copy_(2, self.cells, part)
        else:
            x.index_copy_(2, self.cells[self.real], part.index_select(2, self.real))


@lru_cache(8)
def side_by_side(lengths: tuple[int, ...], device: torch.device = CPU) -> list[SideBySide]:
    """The texts of a stream in batches; those beyond SHORT by themselves. The same for every layer of a step."""
    starts, found = [0, *accumulate(lengths)], []
    for group in groups(list(lengths)):
        if len(group) == 1 or lengths[group[-1]] > SHORT:
            found += [SideBySide((1, lengths[n]), slice(starts[n], starts[n] + lengths[n])) for n in group]
            continue
        n, T = len(group), lengths[group[-1]]
        size = torch.tensor([lengths[i] for i in group])[:, None]
        start, place = torch.tensor([starts[i] for i in group])[:, None], torch.arange(T)
        cells, inside = (start + place.clamp(max=size - 1)).flatten(), (place < size).flatten()
        whole = bool(inside.all())
        parts = (cells,) if whole else (cells, inside.nonzero()[:, 0], (~inside).nonzero()[:, 0])
        found.append(SideBySide((n, T), *(part.to(device) for part in parts)))
    return found


class Adapted(Function):
    """x W^T + x A^T B^T of several layers that read the same x `(…, D)`, side by side: the LoRA of Hu et al. 2022.

    `weights` are, layer after layer, W `(out, D)`, frozen, A `(r, D)` and B `(out, r)`, B scaled already. W may be of
    any float dtype; all are multiplied in that of x. The sums are made by the products themselves, in place.
    """

    @staticmethod
    def forward(ctx, x: Tensor, *weights: Tensor) -> Tensor:
        flat, dtype = x.reshape(-1, x.shape[-1]), x.dtype
        W, A, B = weights[::3], [a.to(dtype) for a in weights[1::3]], [b.to(dtype) for b in weights[2::3]]
        inner = flat @ torch.cat(A).t()
        outs, ranks = [w.shape[0] for w in W], [a.shape[0] for a in A]
        y = flat.new_empty(flat.shape[0], sum(outs))
        for part, w, z, b in zip(y.split(outs, 1), W, inner.split(ranks, 1), B, strict=True):
            torch.mm(flat, w.to(dtype).t(), out=part)
            part.addmm_(z, b.t())
        ctx.save_for_backward(flat, inner, *weights)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, g: Tensor):
        flat, inner, *weights = ctx.saved_tensors
        dtype, shape = flat.dtype, (*g.shape[:-1], flat.shape[1])
        W, A, B = weights[::3], weights[1::3], weights[2::3]
        outs, ranks = [w.shape[0] for w in W], [a.shape[0] for a in A]
        parts = g.reshape(flat.shape[0], -1).split(outs, 1)
        d_inner = torch.cat([part @ b.to(dtype) for part, b in zip(parts, B, strict=True)], 1)
        d_A = (d_inner.t() @ flat).split(ranks)
        grads: list[Tensor | None] = [None] * len(weights)
        for n, (part, z) in enumerate(zip(parts, inner.split(ranks, 1), strict=True)):
            grads[3 * n + 1] = d_A[n].to(A[n].dtype)
            grads[3 * n + 2] = (part.t() @ z).to(B[n].dtype)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = d_inner @ torch.cat([a.to(dtype) for a in A])
            for part, w in zip(parts, W, strict=True):
                d_x.addmm_(part, w.to(dtype))
            d_x = d_x.view(shape)
        return d_x, *grads


class GLU(Function):
    """`activation(gate) * up` of `gate, up = x.chunk(2, -1)` (Shazeer 2020), by its `activation`."""

    @staticmethod
    def forward(ctx, x: Tensor, activation: str) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        active = ACTIVATIONS[activation](gate)
        ctx.save_for_backward(x, active)
        ctx.activation = activation
        return active * up

    @staticmethod
    def backward(ctx, g: Tensor):
        x, active = ctx.saved_tensors
        gate, up = x.chunk(2, dim=-1)
        d = torch.empty_like(x)
        d_gate, d_up = d.chunk(2, dim=-1)
        torch.mul(g, active, out=d_up)
        if ctx.activation == "silu":
            torch.ops.aten.silu_backward.grad_input(g * up, gate, grad_input=d_gate)
        else:
            torch.ops.aten.gelu_backward.grad_input(g * up, gate, approximate="tanh", grad_input=d_gate)
        return d, None
