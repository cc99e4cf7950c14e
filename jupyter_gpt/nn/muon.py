"""Muon: momentum, orthogonalised, for the matrices of a transformer (Jordan et al. 2024).

Each update is the momentum matrix with its singular values pushed to one, so that every direction moves equally far.
Notable: matrices of equal shape are stacked, wide and tall ones together by transposing, and orthogonalised as one
batch in bf16 where the hardware has it; the polynomials are those of Polar Express (Amsel et al. 2025), which need no
singular-value decomposition; the spectrum is bounded by the Schatten-4 norm, which the first step's Gram matrix gives
for nothing and which is up to r^(1/4) times tighter than the Frobenius norm: three steps reach as far as five did.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jupyter_gpt.nn.devices import choose_dtype

# The optimal quintics x <- a x + b (x x^T) x + c (x x^T)^2 x for singular values in [0.01, 1], by the paper's
# algorithm 1, all but the last contracted by 1% against rounding: together they map that interval into [0.71, 1.28].
# tests/nn/test_muon.py computes them anew.
POLAR_EXPRESS = (
    (7.910260608, -22.078821746, 15.869113737),
    (3.607344701, -2.64666857, 0.511039733),
    (2.67126648, -1.985315443, 0.453522517),
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


def cut(t: Tensor, dim: int, pieces: int) -> Tensor:
    """A matrix as a view of `(pieces, r, c)` blocks along `dim`, wide ones (r <= c); a stack of matrices as it is."""
    rows, columns = t.shape[-2:]
    if t.ndim == 3:
        blocks = t
    elif dim == 0:
        blocks = t.view(pieces, rows // pieces, columns)
    else:
        blocks = t.view(rows, pieces, columns // pieces).transpose(0, 1)
    return blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT


class Muon:
    """The optimiser of the matrices `params`, each `(out, in)`, or `(in, out)` if its id is in `transposed`, or a stack
    of them, as of experts.

    `blocks` maps ids of matrices to `(dim, pieces)`: each piece along that dimension is orthogonalised by itself.
    `step(factor)` moves every entry by the root mean square that lr * factor * sqrt(max(1, out/in)) times an
    orthogonal matrix of the whole shape has, along the orthogonalised Nesterov momentum. A gradient that is missing (of
    an expert that no token came to) is zero.
    """

    def __init__(
        self,
        params: list[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        transposed: frozenset[int] = frozenset(),
        blocks: dict[int, tuple[int, int]] | None = None,
        compile: bool = False,
    ):
        self.lr, self.momentum, self.weight_decay, self.transposed = lr, momentum, weight_decay, transposed
        self.blocks = blocks or {}
        width = max((min(p.shape) for p in params), default=0)
        self.dtype = getattr(torch, choose_dtype(params[0].device.type, width)) if params else torch.float32
        self.orthogonalise = torch.compile(orthogonalise, dynamic=False) if compile else orthogonalise
        self.groups: dict[tuple[int, int], list[Tensor]] = {}
        for p in params:
            self.groups.setdefault(tuple(self.view(p, p).shape[1:]), []).append(p)
        self.buffers = {
            (r, c): torch.zeros(sum(p.numel() for p in group) // (r * c), r, c, device=group[0].device)
            for (r, c), group in self.groups.items()
        }

    def view(self, p: Tensor, t: Tensor) -> Tensor:
        """`t`, of the shape of `p`, in the blocks of `p`."""
        return cut(t, *self.blocks.get(id(p), (0, 1)))

    def reach(self, p: Tensor, block: tuple[int, int]) -> float:
        """What its blocks, orthogonalised, are multiplied by: see the class."""
        out, inside = reversed(p.shape[-2:]) if id(p) in self.transposed else p.shape[-2:]
        return max(1.0, out / inside) ** 0.5 * (block[1] / max(out, inside)) ** 0.5

    @torch.no_grad()
    def step(self, factor: float) -> None:
        for shape, group in self.groups.items():
            buffer, lr = self.buffers[shape], self.lr * factor
            gradient = torch.cat([self.view(p, torch.zeros_like(p) if p.grad is None else p.grad) for p in group])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = self.orthogonalise(gradient.lerp_(buffer, self.momentum), self.dtype)
            if self.weight_decay:
                torch._foreach_mul_(group, 1 - lr * self.weight_decay)
            first = 0
            for p in group:
                blocks = self.view(p, p)
                blocks.add_(update[first : first + len(blocks)], alpha=-lr * self.reach(p, shape))
                first += len(blocks)

    def state(self) -> dict[str, Tensor]:
        """The momentum buffers by shape of block, `(n, r, c)` each."""
        return {f"muon.{r}x{c}": buffer for (r, c), buffer in self.buffers.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        for (r, c), buffer in self.buffers.items():
            buffer.copy_(state[f"muon.{r}x{c}"])
