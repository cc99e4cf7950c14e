"""The optimizers of a run: Muon on the transformer's matrices with AdamW on the rest, or AdamW on everything.

Muon (Jordan et al. 2024) is momentum, orthogonalized: each update is the momentum matrix with its singular values
pushed to one, so that every direction moves equally far. Matrices of equal shape are stacked, wide and tall ones
together by transposing, and orthogonalized as one batch in bf16 where the hardware has it. The polynomials are those of
Polar Express (Amsel et al. 2025), which need no singular-value decomposition; the spectrum is bounded by the Schatten-4
norm, which the first step's Gram matrix gives for nothing and which is up to r^(1/4) times tighter than the Frobenius
norm: three steps reach as far as five did. Embeddings, head, norms and biases are no matrices that mix features: they
are AdamW's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from jupyter_gpt.nn import adamw8bit
from jupyter_gpt.nn.devices import choose_dtype
from jupyter_gpt.nn.lora_linear import unwrapped
from jupyter_gpt.nn.modules import piece, trained_by_name

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
    x = matrices if dtype == torch.float16 else matrices.to(dtype)  # float16 has no room for small momentum
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-20)  # in range for the squares below
    x = x.to(dtype)
    gram = x @ x.mT
    least = 1e-20 if dtype != torch.float16 else 1e-6
    bound = gram.norm(dim=(-2, -1), keepdim=True) * 1.02 + least  # of the squared singular values
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
        self.ranks: Any = None  # among which the matrices are dealt, None for one
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
            update = self.orthogonalised(gradient.lerp_(buffer, self.momentum))
            if self.weight_decay:
                torch._foreach_mul_(group, 1 - lr * self.weight_decay)
            first = 0
            for p in group:
                blocks = self.view(p, p)
                blocks.add_(update[first : first + len(blocks)], alpha=-lr * self.reach(p, shape))
                first += len(blocks)

    def orthogonalised(self, matrices: Tensor) -> Tensor:
        """The update `(n, r, c)`; each rank orthogonalises its share of the matrices."""
        if self.ranks is None:
            return self.orthogonalise(matrices, self.dtype)
        return self.ranks.dealt(matrices, lambda own: self.orthogonalise(own, self.dtype))

    @property
    def exchanged(self) -> float:
        """Bytes of updates that each of several ranks sends in a step."""
        whole = sum(p.numel() for group in self.groups.values() for p in group) * self.dtype.itemsize
        return 0.0 if self.ranks is None else whole * (self.ranks.size - 1) / self.ranks.size

    def state(self) -> dict[str, Tensor]:
        """The momentum buffers by shape of block, `(n, r, c)` each."""
        return {f"muon.{r}x{c}": buffer for (r, c), buffer in self.buffers.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        for (r, c), buffer in self.buffers.items():
            buffer.copy_(state[f"muon.{r}x{c}"])


@dataclass
class Optimizers:
    """What steps a model: one of `muon` and `adamw` may be None; `names` keys the AdamW state by parameter name."""

    muon: Muon | None
    adamw: Any  # torch.optim.AdamW, or of 8 bits
    names: dict[Tensor, str]

    def spread(self, ranks: Any) -> None:
        """Share the work with other `Ranks`, whose gradients are the same."""
        if self.muon:
            self.muon.ranks = ranks

    def replace(self, by: Mapping[Tensor, Tensor], muon_of: Callable[[Muon], Muon]) -> None:
        """Before the first step: go on with other parameters in the place of these."""
        self.names = {by[p]: name for p, name in self.names.items()}
        for group in self.adamw.param_groups if self.adamw else ():
            group["params"] = [by[p] for p in group["params"]]
        if self.muon:
            ids = {id(old): id(new) for old, new in by.items()}
            self.muon.transposed = frozenset(ids[key] for key in self.muon.transposed if key in ids)
            self.muon.blocks = {ids[key]: cut for key, cut in self.muon.blocks.items() if key in ids}
            self.muon.groups = {shape: [by[p] for p in group] for shape, group in self.muon.groups.items()}
            self.muon = muon_of(self.muon)

    def step(self, factor: float) -> None:
        """One update of every parameter, at `factor` times the peak learning rates; clears the gradients."""
        if self.muon:
            self.muon.step(factor)
        if self.adamw:
            for group in self.adamw.param_groups:
                group["lr"] = group["peak"] * factor
            self.adamw.step()
        self.clear_gradients()

    def clear_gradients(self) -> None:
        for parameter in self.names:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as named tensors for safetensors."""
        tensors = self.muon.state() if self.muon else {}
        for parameter, moments in self.adamw.state.items() if self.adamw else ():
            for key, value in adamw8bit.own(moments):
                tensors[f"adamw.{self.names[parameter]}.{key}"] = torch.as_tensor(value)
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        if self.muon:
            self.muon.load(tensors)
        for group in self.adamw.param_groups if self.adamw else ():
            for parameter in group["params"]:
                prefix = f"adamw.{self.names[parameter]}."
                found = {
                    key: value.to(parameter.device)
                    for name, value in tensors.items()
                    if name.startswith(prefix) and "." not in (key := name.removeprefix(prefix))
                }
                if "state1" in found:
                    self.adamw.state[parameter] = adamw8bit.restored(self.adamw, found)
                    continue
                self.adamw.state[parameter] = {k: v if k == "step" else piece(v, parameter) for k, v in found.items()}


def optimizers(model: nn.Module, recipe, compile: bool = False) -> Optimizers:
    """The optimisers `recipe` asks for, over the trainable parameters of `model`."""
    names = {p: n for n, p in model.named_parameters() if p.requires_grad}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = model.get_output_embeddings().weight
    matrices = [p for p in names if p.ndim == 2 and id(p) not in tables and p is not head]
    vectors = [p for p in names if p.ndim < 2]
    tables_only = [p for p in names if id(p) in tables and p is not head]
    peaks = [(tables_only, recipe.lr_embedding, 0.0), ([head], recipe.lr_head, 0.0), (vectors, recipe.lr_vectors, 0.0)]
    muon, betas = None, (recipe.beta1, recipe.beta2)
    if recipe.optimizer == "muon":
        from transformers.pytorch_utils import Conv1D

        transposed = frozenset(id(m.weight) for m in model.modules() if isinstance(m, Conv1D))
        muon = Muon(
            matrices, recipe.lr, recipe.momentum, recipe.weight_decay, transposed, muon_blocks(model, recipe), compile
        )
    else:
        peaks.append((matrices, recipe.lr, recipe.weight_decay))
    low = recipe.optimizer == adamw8bit.NAME
    return Optimizers(muon, adamw(peaks, betas, 1e-10, matrices if low else None), names)


def finetuning_optimizers(model: nn.Module, recipe) -> Optimizers:
    """The optimisers of a finetuning run over the trainable parameters of `model`: all of them, or an adapter.

    AdamW has one rate for all (weight decay for the matrices, not for rows of an adapter: they are whole rows, no
    changes that fade); with Muon the tables, the head and the vectors keep the ratios to it that they have in
    pretraining. `recipe` has optimizer, lr, weight_decay, momentum, beta1, beta2, eps.
    """
    names = {p: n for n, p in model.named_parameters() if p.requires_grad}
    rows = {id(p) for p, n in names.items() if ".trainable_tokens_" in n}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | rows
    output = model.get_output_embeddings()  # of a classifier None
    head = None if output is None else unwrapped(output).weight
    if recipe.optimizer != "muon":
        matrices = [p for p in names if p.ndim > 1 and id(p) not in rows]
        others = [p for p in names if p.ndim < 2 or id(p) in rows]
        peaks = [(matrices, recipe.lr, recipe.weight_decay), (others, recipe.lr, 0.0)]
        inner = [p for p in matrices if id(p) not in tables and p is not head]
        low = inner if recipe.optimizer == adamw8bit.NAME else None
        return Optimizers(None, adamw(peaks, (recipe.beta1, recipe.beta2), recipe.eps, low), names)
    from transformers.pytorch_utils import Conv1D

    config = model.config.get_text_config()
    heads, kv_heads = (getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    heads = heads if isinstance(heads, int) else 1  # none in a state-space model, or other ones in each layer
    shape = SimpleNamespace(
        heads=heads, kv_heads=kv_heads if isinstance(kv_heads, int) else heads, width=config.hidden_size
    )
    scale = (768 / shape.width) ** 0.5
    matrices = [p for p in names if is_matrix(p) and id(p) not in tables and p is not head]
    others = {id(p) for p in matrices} | tables | {id(head)}
    peaks = [
        ([p for p in names if id(p) in tables and p is not head], 1.5 * scale * recipe.lr, 0.0),
        ([p for p in names if p is head], 0.2 * scale * recipe.lr, 0.0),
        ([p for p in names if id(p) not in others], 0.5 * recipe.lr, 0.0),
    ]
    transposed = frozenset(id(m.weight) for m in model.modules() if isinstance(m, Conv1D))
    blocks = muon_blocks(model, shape)
    muon = Muon(matrices, recipe.lr, recipe.momentum, recipe.weight_decay, transposed, blocks)
    return Optimizers(muon, adamw(peaks, (0.8, 0.95), 1e-10), names)


def adamw_of(modules: Mapping[str, nn.Module], peaks: Mapping[str, float], weight_decay: float = 0.0) -> Optimizers:
    """One AdamW over the trainable parameters of `modules`, each module with a peak learning rate of its own."""
    names = {parameter: name for name, parameter in trained_by_name(modules).items()}
    groups = [
        {"params": [p for p in module.parameters() if p.requires_grad], "peak": peaks[name], "lr": peaks[name]}
        for name, module in modules.items()
    ]
    return Optimizers(None, torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True), names)


def is_matrix(p: Tensor) -> bool:
    """Whether a parameter mixes features: a matrix, or a stack of them; a kernel `(D, 1, k)` goes over time alone."""
    return p.ndim in (2, 3) and min(p.shape[-2:]) > 1


def adamw(
    peaks: list[tuple[list, float, float]], betas: tuple[float, float], eps: float, low: list[Tensor] | None = None
) -> Any:
    """AdamW over groups of (parameters, peak rate, weight decay); None where there is nothing to step. With `low` the
    moments of these have 8 bits."""
    if low is not None:
        inner = {id(p) for p in low}
        groups = [
            {"params": some, "peak": lr, "lr": lr, "weight_decay": decay, "bits": bits}
            for ps, lr, decay in peaks
            for bits in (8, 32)
            if (some := [p for p in ps if (id(p) in inner) == (bits == 8)])
        ]
        return adamw8bit.adamw8bit(groups, betas, eps) if groups else None
    groups = [{"params": ps, "peak": lr, "lr": lr, "weight_decay": decay} for ps, lr, decay in peaks if ps]
    return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=True) if groups else None


def muon_blocks(model: nn.Module, recipe) -> dict[int, tuple[int, int]]:
    """Where Muon cuts a matrix before it orthogonalises: ids of weights to (dimension, pieces).

    The projections of attention into their heads, each a matrix of its own; in models narrower than 512, where Muon
    weighs against the few tokens of a step, the MLP's into pieces of 64 or more hidden units too (MuonBP, Khaled et al.
    2025). On tinyshakespeare the loss is the same to 0.01, at a quarter of the work. A matrix of such a name in another
    architecture, which does not divide so, stays whole.
    """
    from transformers.pytorch_utils import Conv1D

    heads, kv = recipe.heads, recipe.kv_heads
    linear = {
        "q_proj": (0, heads),
        "k_proj": (0, kv),
        "v_proj": (0, kv),
        "o_proj": (1, heads),
        "gate_proj": (0, None),
        "up_proj": (0, None),
        "down_proj": (1, None),
    }
    conv = {"attn.c_attn": (1, 3 * heads), "attn.c_proj": (0, heads), "mlp.c_fc": (1, None), "mlp.c_proj": (0, None)}
    found = {}
    for name, module in model.named_modules():
        cuts = conv if isinstance(module, Conv1D) else linear if isinstance(module, nn.Linear) else {}
        for ending, (dim, pieces) in cuts.items():
            if name.endswith("." + ending):
                size = module.weight.shape[dim]
                pieces = pieces or (units(size) if recipe.width < 512 else 1)
                if size % pieces == 0:
                    found[id(module.weight)] = dim, pieces
    return found


def units(hidden: int) -> int:
    """Into how many pieces of 64 or more an MLP is cut."""
    return next(n for n in range(hidden // 64 or 1, 0, -1) if hidden % n == 0)
