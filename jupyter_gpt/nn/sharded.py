"""A model that lies in pieces on all ranks: FSDP2 (Zhao et al. 2023; `torch.distributed.fsdp.fully_shard`) per block.

Each rank keeps its rows of every parameter, of its gradient and of the optimizer's state; a block's weights are
gathered when it computes, and dropped after. FSDP hangs on a module's call, so blocks and model are called with the
function that they are to run. What needs the weights themselves (sampling, the folder at the end) gets a plain copy of
the modules, into which they are gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.distributed import Ranks
from jupyter_gpt.nn.lora import with_shared_weights
from jupyter_gpt.nn.modules import piece
from jupyter_gpt.nn.optimizer import Muon, Optimizers
from jupyter_gpt.nn.transformer import Trunk


class Sharded:
    """What became of `model` and its optimizers when it was cut into pieces; `plain` has the same modules whole."""

    def __init__(self, model: nn.Module, trunk: Trunk, optimizers: Optimizers, ranks: Ranks):
        kind, blocks = trunk.model.config.model_type, blocks_of(trunk)
        if getattr(trunk.model, "hf_quantizer", None) is not None:
            raise GPTError("--shard: quantized weights cannot be cut into pieces: leave --shard or --load-in out")
        if any(".experts" in name for name, _ in model.named_parameters()):
            raise GPTError(f"--shard: a mixture of experts ({kind}) cannot be cut into pieces yet: leave --shard out")
        if not blocks:
            raise GPTError(f"--shard: the layers of a {kind} model were not found: leave --shard out")
        self.model, self.ranks, self.plain = model, ranks, with_shared_weights(model)
        before = dict(model.named_parameters())
        low = trunk.dtype if trunk.dtype != torch.float32 else None
        self.policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)
        mesh = init_device_mesh(ranks.device, (ranks.size,))
        for module in (*blocks, model):
            runs_what_it_is_given(module)
            fully_shard(module, mesh=mesh, mp_policy=self.policy)
            module.set_gradient_divide_factor(1.0)  # a step's loss is a sum over the ranks
            module.set_force_sum_reduction_for_comms(True)
        trunk.lies_in(blocks)
        after = dict(model.named_parameters())
        with torch.no_grad():
            for parameter in before.values():
                parameter.data = parameter.data.new_empty(0)
        optimizers.replace({p: after[name] for name, p in before.items()}, lambda muon: ShardedMuon(muon, ranks))

    def bytes(self, micro_batches: float) -> float:
        """About what each rank sends in a step: the weights for each forward and backward pass, the gradients."""
        size, low = self.ranks.size, 2 if self.policy.param_dtype is not None else 4
        every = [(p.numel(), p.requires_grad) for p in self.model.parameters()]
        passes = sum((2 * low + 4 * trained) * n for n, trained in every) * micro_batches
        return passes * (size - 1) / size

    def run(self, function: Callable[[], Any]) -> Any:
        """`function()`, which reads the model; the same on all ranks."""
        return self.model(function=function)

    @contextmanager
    def whole(self) -> Iterator[nn.Module | None]:
        """The plain model with the weights as they are, on the first rank; None on the others. All ranks come here."""
        self.gather()
        try:
            yield self.plain if self.ranks.rank == 0 else None
        finally:
            with torch.no_grad():
                for p in self.plain.parameters():
                    p.data = p.data.new_empty(0)

    def gather(self) -> nn.Module:
        """The plain model; on the first rank with the weights."""
        self.model.reshard()
        plain = dict(self.plain.named_parameters())
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                found = p.full_tensor()
                if self.ranks.rank == 0:
                    plain[name].data = found
        return self.plain

    def state(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors whole and on the CPU, on the first rank; nothing on the others. All ranks come here."""
        found = {}
        for name, tensor in tensors.items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.ranks.rank == 0:
                found[name] = whole.detach().cpu()
        return found


def runs_what_it_is_given(module: nn.Module) -> None:
    """Have a module, called with a `function`, return what that does with the other arguments."""
    own = module.forward

    def forward(*args, function: Callable | None = None, **kwargs):
        return own(*args, **kwargs) if function is None else function(*args)

    module.forward = forward


def blocks_of(trunk: Trunk) -> list[nn.Module]:
    """The layers of a model, in order."""
    lists = [part for part in trunk.body.modules() if isinstance(part, nn.ModuleList)]
    sizes = [sum(p.numel() for p in part.parameters()) for part in lists]
    return list(lists[sizes.index(max(sizes))]) if lists else []


class ShardedMuon(Muon):
    """Muon on matrices in pieces. As many matrices as there are ranks are orthogonalised at a time: each rank is sent
    the pieces of one, and sends back those of its update."""

    def __init__(self, muon: Muon, ranks: Ranks):
        self.__dict__.update(muon.__dict__)
        self.ranks = ranks
        self.momenta = {p: torch.zeros_like(p) for group in self.groups.values() for p in group}
        self.buffers = {}

    @property
    def exchanged(self) -> float:
        """Bytes of gradients and updates that each rank sends in a step."""
        own = sum(p.numel() for p in self.momenta) / self.ranks.size
        return own * (4 + self.dtype.itemsize) * (self.ranks.size - 1) / self.ranks.size

    @torch.no_grad()
    def step(self, factor: float) -> None:
        lr, size = self.lr * factor, self.ranks.size
        for shape, group in self.groups.items():
            for first in range(0, len(group), size):
                together = group[first : first + size]
                for p, update in zip(together, self.updates(together), strict=True):
                    own = local(p)
                    own.mul_(1 - lr * self.weight_decay).add_(update, alpha=-lr * self.reach(p, shape))

    def updates(self, together: list[Tensor]) -> list[Tensor]:
        """This rank's rows of the updates of at most as many matrices as there are ranks."""
        ranks, mine = self.ranks, None
        sent = []
        for p in together:
            gradient = torch.zeros_like(local(p)) if p.grad is None else local(p.grad).float()
            sent.append(gradient.lerp(local(self.momenta[p]).lerp_(gradient, 1 - self.momentum), self.momentum))
        counts = [each.numel() for each in sent] + [0] * (ranks.size - len(sent))
        rows = [0] * ranks.size
        if ranks.rank < len(together):
            mine = together[ranks.rank]
            rows = [n * mine.shape[1] for n in rows_of(len(mine), ranks.size)]
        found = exchanged(ranks, torch.cat([each.flatten() for each in sent]), counts, rows)
        back = found.new_zeros(0)
        if mine is not None:
            update = torch.empty_like(found.view(mine.shape))
            self.view(mine, update).copy_(self.orthogonalise(self.view(mine, found.view(mine.shape)), self.dtype))
            back = update.flatten()
        parts = exchanged(ranks, back.to(self.dtype), rows, counts).split(counts)
        return [part.view(each.shape) for part, each in zip(parts, sent, strict=False)]

    def state(self) -> dict[str, Tensor]:
        """As of `Muon`: the momenta whole, gathered by all ranks."""
        return {
            f"muon.{r}x{c}": torch.cat([self.view(p, self.momenta[p].full_tensor()) for p in group])
            for (r, c), group in self.groups.items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        for (r, c), group in self.groups.items():
            first = 0
            for p in group:
                whole = torch.empty(p.shape)
                blocks = self.view(p, whole)
                blocks.copy_(state[f"muon.{r}x{c}"][first : first + len(blocks)])
                first += len(blocks)
                self.momenta[p].copy_(piece(whole, self.momenta[p]))


def local(tensor: Tensor) -> Tensor:
    """This rank's rows of a tensor in pieces."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def rows_of(count: int, size: int) -> list[int]:
    """How many of so many rows each rank has."""
    each = -(-count // size)
    return [min(each, max(0, count - rank * each)) for rank in range(size)]


def exchanged(ranks: Ranks, sent: Tensor, to: list[int], of: list[int]) -> Tensor:
    """What the others sent: `to` numbers to each rank, `of` from each."""
    found = sent.new_empty(sum(of))
    dist.all_to_all_single(found, sent.contiguous(), of, to)
    return found
