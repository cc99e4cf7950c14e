"""Muon: momentum, orthogonalised, for the matrices of a transformer (Jordan et al. 2024).

Each update is the momentum matrix with its singular values pushed to one, so that every direction moves equally far.
Notable: matrices of equal shape are stacked, wide and tall ones together by transposing, and orthogonalised as one
batch in bf16 where the hardware has it; the polynomials are those of Polar Express (Amsel et al. 2025), which need no
singular-value decomposition; the spectrum is bounded by the Schatten-4 norm, which the first step's Gram matrix gives
for nothing and which is up to r^(1/4) times tighter than the Frobenius norm: one step less for the same reach.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jupyter_gpt.training.device import choose_dtype

# The optimal quintics x <- a x + b (x x^T) x + c (x x^T)^2 x for singular values in [0.003, 1], by the paper's
# algorithm 1, all but the last contracted by 1% against rounding: together they map that interval into [0.77, 1.21].
# tests/training/test_muon.py computes them anew.
POLAR_EXPRESS = (
    (8.137723867, -22.713708635, 16.325437556),
    (3.965223821, -2.836400988, 0.522467437),
    (3.488674689, -2.562167298, 0.501624922),
    (2.511527166, -1.852448356, 0.438832636),
)


def orthogonalise(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest semi-orthogonal matrices to `(n, r, c)` with r <= c, approximately: singular values near one."""
    x = matrices.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-20)  # in range for the squares below
    gram = x @ x.mT
    bound = gram.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-20  # of the squared singular values
    x, gram = x * bound.rsqrt(), gram / bound
    for step, (a, b, c) in enumerate(POLAR_EXPRESS):
        if step:
            gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon:
    """The optimiser of the matrices `params`, each `(out, in)`, or `(in, out)` if its id is in `transposed`.

    `step(factor)` moves every matrix by lr * factor * sqrt(max(1, out/in)) along its orthogonalised Nesterov
    momentum. Parameters without a gradient are an error: a frozen matrix does not belong here.
    """

    def __init__(
        self,
        params: list[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        transposed: frozenset[int] = frozenset(),
        compile: bool = False,
    ):
        self.lr, self.momentum, self.weight_decay, self.transposed = lr, momentum, weight_decay, transposed
        width = max((min(p.shape) for p in params), default=0)
        self.dtype = getattr(torch, choose_dtype(params[0].device.type, width)) if params else torch.float32
        self.orthogonalise = torch.compile(orthogonalise, dynamic=False) if compile else orthogonalise
        self.groups: dict[tuple[int, int], list[Tensor]] = {}
        for p in params:
            self.groups.setdefault((min(p.shape), max(p.shape)), []).append(p)
        self.buffers = {
            shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self.groups.items()
        }

    def reach(self, p: Tensor) -> float:
        """How far this matrix moves for its shape: sqrt(max(1, out/in))."""
        out, inside = reversed(p.shape) if id(p) in self.transposed else p.shape
        return max(1.0, out / inside) ** 0.5

    @torch.no_grad()
    def step(self, factor: float) -> None:
        for shape, group in self.groups.items():
            buffer, lr = self.buffers[shape], self.lr * factor
            gradient = torch.stack([p.grad if p.shape[0] <= p.shape[1] else p.grad.mT for p in group])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = self.orthogonalise(gradient.lerp_(buffer, self.momentum), self.dtype)
            if self.weight_decay:
                torch._foreach_mul_(group, 1 - lr * self.weight_decay)
            for p, u in zip(group, update.unbind(), strict=True):
                p.add_(u if p.shape[0] <= p.shape[1] else u.mT, alpha=-lr * self.reach(p))

    def state(self) -> dict[str, Tensor]:
        """The momentum buffers by shape, `(n, r, c)` each."""
        return {f"muon.{r}x{c}": buffer for (r, c), buffer in self.buffers.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        for (r, c), buffer in self.buffers.items():
            buffer.copy_(state[f"muon.{r}x{c}"])
