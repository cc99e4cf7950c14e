"""Muon: momentum, orthogonalised, for the matrices of a transformer (Jordan et al. 2024).

Each update is the momentum matrix with its singular values pushed to one, so that every direction moves equally far.
Notable: matrices of equal shape are stacked, wide and tall ones together by transposing, and orthogonalised as one
batch; the polynomial is that of Polar Express (Amsel et al. 2025), which needs no singular-value decomposition.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The optimal quintics a, b, c of x <- a x + b (x x^T) x + c (x x^T)^2 x for singular values in [1e-3, 1], computed
# by the paper's algorithm; in use each is slightly contracted for the rounding of bf16.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalise(matrices: Tensor, dtype: torch.dtype, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to `(n, r, c)` with r <= c, approximately: singular values near one."""
    x = matrices.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS[:iterations]:
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
        self.dtype = torch.bfloat16 if params and params[0].is_cuda else torch.float32
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
