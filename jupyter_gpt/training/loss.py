"""Cross-entropy over a large vocabulary without ever holding its logits in fp32.

The hidden states are cut into chunks of rows; each chunk's logits are made, turned into their own gradient in place
(softmax minus one-hot), and multiplied back at once, all in the forward pass. What remains for the backward pass is
one scaling. Peak memory is one chunk of logits instead of `(B*T, V)` three times over.
"""

from __future__ import annotations

import torch
from torch import Tensor

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


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy in nats of `hidden @ weight.T` against targets, gradients made on the way."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, gradient_of) -> Tensor:
        low = weight.to(hidden.dtype)
        needed, trains_weight = hidden.requires_grad or weight.requires_grad, weight.requires_grad
        scale = 1.0 / (targets != IGNORE).sum().clamp(min=1).float()
        d_hidden = torch.empty_like(hidden) if needed else None
        d_weight = None
        losses = []
        for h, t, out in zip(
            hidden.split(chunk), targets.split(chunk), (d_hidden if needed else hidden).split(chunk), strict=True
        ):
            loss, g = gradient_of(h @ low.t(), t, scale)
            losses.append(loss.sum())
            if needed:
                torch.mm(g, low, out=out)
            if trains_weight:
                part = product(g.t(), h)
                d_weight = part if d_weight is None else d_weight.add_(part)
        if needed:
            ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype) if trains_weight else None)
        return torch.stack(losses).sum() * scale

    @staticmethod
    def backward(ctx, upstream: Tensor):
        d_hidden, d_weight = ctx.saved_tensors
        d_weight = d_weight * upstream if d_weight is not None else None
        return d_hidden * upstream.to(d_hidden.dtype), d_weight, None, None, None


def chunk_rows(vocabulary: int, device: str, least: int = 256) -> int:
    """Rows of logits to hold at once: 16 MiB in fp32 for a CPU's caches (at 16,384 tokens 1.4 times as fast as all
    2,048 rows of a batch at once), 1.5 GiB in bf16 on a GPU; `least` at least, for each chunk adds to the gradient of
    a whole head that is trained."""
    return max(least, (1 << 22 if device == "cpu" else 1 << 29 | 1 << 28) // vocabulary)


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, gradient_of=eager_softmax_gradient) -> Tensor:
    """Mean loss in nats over the targets that are not IGNORE.

    hidden `(..., D)`, weight `(V, D)` (any float dtype; multiplied in the dtype of `hidden`), targets `(...)` int64.
    Under `torch.no_grad` no gradient is computed.
    """
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    chunk = chunk_rows(weight.shape[0], hidden.device.type)
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    return LinearCrossEntropy.apply(hidden, weight, targets, chunk, gradient_of)


class SelectedLogits(torch.autograd.Function):
    """Of hidden states `(n, D)` and a head `(V, D)`: the log-probability `(n,)` of each target and the entropy `(n,)`,
    both in fp32 nats; no gradient goes through the entropy. The logits are made again for the backward pass.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        chunk = chunk_rows(len(weight), hidden.device.type, 256 if weight.requires_grad else 64)
        logps, entropies = [], []
        low = weight.to(hidden.dtype)
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logp = torch.log_softmax(h @ low.t(), dim=-1, dtype=torch.float32)
            logps.append(logp.gather(1, t[:, None])[:, 0])
            entropies.append(-logp.exp().mul_(logp).sum(dim=-1))
        ctx.save_for_backward(hidden, weight, targets)
        ctx.chunk = chunk
        logp, entropy = torch.cat(logps), torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx, upstream: Tensor, _entropy):
        hidden, weight, targets = ctx.saved_tensors
        low = weight.to(hidden.dtype)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        parts = (x.split(ctx.chunk) for x in (hidden, targets, upstream, d_hidden))
        for h, t, g, out in zip(*parts, strict=True):
            d = torch.softmax(h @ low.t(), dim=-1, dtype=torch.float32).mul_(-g[:, None])
            d.scatter_add_(1, t[:, None], g[:, None].to(d.dtype))
            d = d.to(hidden.dtype)
            torch.mm(d, low, out=out)
            if d_weight is not None:
                d_weight += d.t().float() @ h.float()
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), None
