"""Cross-entropy over a large vocabulary without ever holding its logits in fp32.

The hidden states are cut into chunks of rows; each chunk's logits are made, turned into their own gradient in place
(softmax minus one-hot), and multiplied back at once, all in the forward pass. What remains for the backward pass is
one scaling. Peak memory is one chunk of logits instead of `(B*T, V)` three times over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jupyter_gpt.nn.lora_linear import TokenRows

IGNORE = -100  # a target that is not trained on, as in torch and transformers


def softmax_gradient(logits: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Loss per row `(n,)` in fp32 nats, and d(sum of losses * scale)/d logits `(n, V)` in the dtype of the logits.

    `scale` is 1/trained rows. Rows whose target is IGNORE give zero loss and zero gradient.
    """
    trained = targets != IGNORE
    index = torch.where(trained, targets, 0)[:, None]
    full = logits.float()
    lse = torch.logsumexp(full, dim=-1, keepdim=True)
    loss = torch.where(trained, (lse - full.gather(1, index)).squeeze(1), 0.0)
    factor = torch.where(trained, scale, 0.0)[:, None]
    column = torch.arange(logits.shape[1], device=logits.device)
    gradient = (torch.exp(full - lse) - (column[None] == index).float()) * factor
    return loss, gradient.to(logits.dtype)


def eager_softmax_gradient(logits: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """As `softmax_gradient`, with in-place steps: fewer passes where nothing fuses them for us."""
    trained = targets != IGNORE
    index = torch.where(trained, targets, 0)[:, None]
    logp = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    loss = torch.where(trained, -logp.gather(1, index).squeeze(1), 0.0)
    gradient = logp.exp_().scatter_add_(1, index, torch.full_like(loss, -1.0)[:, None])
    gradient.mul_(torch.where(trained, scale, 0.0)[:, None])
    return loss, gradient.to(logits.dtype)


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` in fp32, from low-precision inputs where the device can accumulate them so."""
    if a.dtype == torch.float32 or a.device.type != "cuda":
        return (a @ b).float()
    return torch.mm(a, b, out_dtype=torch.float32)


def logits_of(hidden: Tensor, weight: Tensor, ids: Tensor | None, rows: Tensor | None) -> Tensor:
    """`hidden @ weight.T`, with `rows` `(r, D)` in the place of the weight's rows `ids` `(r,)`, if there are any."""
    logits = hidden @ weight.t()
    return logits if rows is None else logits.index_copy_(1, ids, hidden @ rows.t())


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy in nats of `hidden @ weight.T` against targets, gradients made on the way.

    `rows` `(r, D)`, if any, stand in the place of the weight's rows `ids` `(r,)`.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, gradient_of, ids, rows) -> Tensor:
        low = weight.to(hidden.dtype)
        trains_weight, trains_rows = weight.requires_grad, rows is not None and rows.requires_grad
        needed = hidden.requires_grad or trains_weight or trains_rows
        own = None if rows is None else rows.to(hidden.dtype)
        d_rows = torch.zeros_like(rows, dtype=torch.float32) if trains_rows else None
        scale = 1.0 / (targets != IGNORE).sum().clamp(min=1).float()
        low_range = hidden.dtype == torch.float16  # where scaled gradients would be zero: they are scaled at last
        early, ctx.late = (torch.ones_like(scale), scale) if low_range else (scale, None)
        d_hidden = torch.empty_like(hidden) if needed else None
        d_weight = None
        losses = []
        for h, t, out in zip(
            hidden.split(chunk), targets.split(chunk), (d_hidden if needed else hidden).split(chunk), strict=True
        ):
            loss, g = gradient_of(logits_of(h, low, ids, own), t, early)
            losses.append(loss.sum())
            if needed and own is not None:
                g_own = g.index_select(1, ids)
                g.index_fill_(1, ids, 0)
            if needed:
                torch.mm(g, low, out=out)
            if needed and own is not None:
                out.addmm_(g_own, own)
            if trains_rows:
                d_rows += product(g_own.t(), h)
            if trains_weight:
                part = product(g.t(), h)
                d_weight = part if d_weight is None else d_weight.add_(part)
        if needed:
            d_weight = d_weight.to(weight.dtype) if trains_weight else None
            ctx.save_for_backward(d_hidden, d_weight, d_rows.to(rows.dtype) if trains_rows else None)
        return torch.stack(losses).sum() * scale

    @staticmethod
    def backward(ctx, upstream: Tensor):
        d_hidden, d_weight, d_rows = ctx.saved_tensors
        upstream = upstream if ctx.late is None else upstream * ctx.late
        d_weight, d_rows = (d if d is None else d * upstream for d in (d_weight, d_rows))
        return d_hidden * upstream.to(d_hidden.dtype), d_weight, None, None, None, None, d_rows


def chunk_rows(vocabulary: int, device: str, least: int = 256) -> int:
    """Rows of logits to hold at once: 16 MiB in fp32 for a CPU's caches (at 16,384 tokens 1.4 times as fast as all
    2,048 rows of a batch at once), 1.5 GiB in bf16 on a GPU of 80 GB, less on a smaller one, so that with their
    gradient they stay under a tenth of its memory; `least` at least, for each chunk adds to the gradient of a whole
    head that is trained."""
    most = 1 << 22 if device == "cpu" else 3 << 28
    if device == "cuda":
        most = min(most, torch.cuda.get_device_properties(0).total_memory // 100)
    if device == "mps":
        most = min(most, torch.mps.recommended_max_memory() // 200)  # in fp32
    return max(least, most // vocabulary)


def cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, gradient_of=eager_softmax_gradient, own: TokenRows | None = None
) -> Tensor:
    """Mean loss in nats over the targets that are not IGNORE.

    hidden `(..., D)`, weight `(V, D)` (any float dtype; multiplied in the dtype of `hidden`), targets `(...)` int64;
    `own` are rows of an adapter in the place of the weight's. Under `torch.no_grad` no gradient is computed.
    """
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    chunk = chunk_rows(weight.shape[0], hidden.device.type)
    ids, rows = own or (None, None)
    if not torch.is_grad_enabled():
        hidden, weight, rows = hidden.detach(), weight.detach(), None if rows is None else rows.detach()
    return LinearCrossEntropy.apply(hidden, weight, targets, chunk, gradient_of, ids, rows)


class SelectedLogits(torch.autograd.Function):
    """Of hidden states `(n, D)` and a head `(V, D)`: the log-probability `(n,)` of each target and the entropy `(n,)`,
    both in fp32 nats; no gradient goes through the entropy. The logits are made again for the backward pass. `rows`
    `(r, D)`, if any, stand in the place of the head's rows `ids` `(r,)`.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, ids, rows) -> tuple[Tensor, Tensor]:
        chunk = chunk_rows(len(weight), hidden.device.type, 256 if weight.requires_grad else 64)
        logps, entropies = [], []
        low, own = weight.to(hidden.dtype), None if rows is None else rows.to(hidden.dtype)
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logp = torch.log_softmax(logits_of(h, low, ids, own), dim=-1, dtype=torch.float32)
            logps.append(logp.gather(1, t[:, None])[:, 0])
            entropies.append(-logp.exp().mul_(logp).sum(dim=-1))
        ctx.save_for_backward(hidden, weight, targets, ids, rows)
        ctx.chunk = chunk
        logp, entropy = torch.cat(logps), torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx, upstream: Tensor, _entropy):
        hidden, weight, targets, ids, rows = ctx.saved_tensors
        low, own = weight.to(hidden.dtype), None if rows is None else rows.to(hidden.dtype)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        d_rows = torch.zeros_like(rows, dtype=torch.float32) if ctx.needs_input_grad[4] else None
        parts = (x.split(ctx.chunk) for x in (hidden, targets, upstream, d_hidden))
        for h, t, g, out in zip(*parts, strict=True):
            d = torch.softmax(logits_of(h, low, ids, own), dim=-1, dtype=torch.float32).mul_(-g[:, None])
            d.scatter_add_(1, t[:, None], g[:, None].to(d.dtype))
            d = d.to(hidden.dtype)
            if own is not None:
                d_own = d.index_select(1, ids)
                d.index_fill_(1, ids, 0)
            torch.mm(d, low, out=out)
            if own is not None:
                out.addmm_(d_own, own)
            if d_rows is not None:
                d_rows += d_own.t().float() @ h.float()
            if d_weight is not None:
                d_weight += d.t().float() @ h.float()
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        return d_hidden, d_weight, None, None, None if d_rows is None else d_rows.to(rows.dtype)
