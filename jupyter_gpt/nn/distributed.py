"""The ranks of a run: processes that train one model together, on a device each, as torchrun starts them.

Every rank walks the same loop with the same weights. The micro-batches of a step are dealt to the ranks; the gradients
are summed, in buckets that travel while the backward pass goes on (Li et al. 2020). DDP's own reducer hangs on the
forward of a module, which the training forward does not call (`transformer.py`). All else that ranks tell each other is
small: some numbers, JSON. Nothing here is imported where a run has one device.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from jupyter_gpt.errors import GPTError

TIMEOUT = timedelta(
    hours=2
)  # of waiting for each other: while the first evaluates, say; one that died is known at once
PREPARED, FOREVER = "prepared", timedelta(days=30)  # reading a corpus may take a day
BUCKET = 25 << 20  # bytes of gradients that travel together
gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # the older name

_ranks: Ranks | None = None


def current() -> Ranks | None:
    """The ranks that this process is one of; None where it is alone."""
    return _ranks


def start(shard: bool = False) -> Ranks | None:
    """Join the other ranks, as torchrun's environment names them; None where there are none.

    Each takes the device of its number among those of its machine, the only one that it then sees. Call it before CUDA
    is used. Raises GPTError, one line, where the ranks do not find each other.
    """
    global _ranks
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size > 1 and _ranks is None:
        rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        only(local)
        cuda = torch.cuda.is_available()
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:  # a port that is taken, a host that does not answer, a late rank
            reason = str(error).strip().splitlines()[0]
            raise GPTError(f"rank {rank} of {size} did not find the others ({reason})") from error
        _ranks = Ranks(rank, size, "cuda" if cuda else "cpu", shard)
    return _ranks


def only(local: int) -> None:
    """Have this process see one GPU of the machine, that of the number `local`; before CUDA looks for them."""
    there = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [str(n) for n in range(local + 1)] if there is None else [each for each in there.split(",") if each]
    if found and local >= len(found):
        raise GPTError(f"this machine shows {len(found)} GPUs and was to train on more: --devices {len(found)}")
    os.environ["CUDA_VISIBLE_DEVICES"] = found[local] if found else ""


class Ranks:
    """This process among the others. What it does with them happens in the same order on each."""

    def __init__(self, rank: int, size: int, device: str, shard: bool = False):
        self.rank, self.size, self.device, self.shard = rank, size, device, shard
        self.beside = int(os.environ.get("LOCAL_WORLD_SIZE", size))  # ranks on this machine
        self.joined = False

    def numbers(self, count: int) -> range:
        """Those of `count` pieces of work that are this rank's."""
        return range(self.rank, count, self.size)

    def told(self, values: Sequence[int]) -> list[int]:
        """The first rank's values, on all."""
        found = torch.tensor(values, dtype=torch.long)
        dist.broadcast(found, 0)
        return found.tolist()

    def prepared(self, whether: bool = True) -> None:
        """Of the first rank: tokens and recipe are written, or never will be."""
        if self.rank == 0 and not self.joined:
            store().set(PREPARED, "yes" if whether else "no")
        self.joined = True

    def await_prepared(self) -> bool:
        """Of all others: wait for the first, however long it reads. False where it was stopped before."""
        store().wait([PREPARED], FOREVER)
        return store().get(PREPARED) == b"yes"

    def leave(self) -> None:
        """Part from the others, where all is done."""
        global _ranks
        self.prepared(False)
        dist.destroy_process_group()
        _ranks = None

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over the ranks of some numbers of the host's."""
        found = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(found)
        return found.tolist()

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks of a tensor on their devices, which is overwritten."""
        dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list:
        """The values of all ranks, in their order; anything that is JSON."""
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = torch.zeros(self.size, dtype=torch.long)
        gather_into(sizes, torch.tensor([len(own)]))
        longest = int(sizes.max())
        every = torch.zeros(self.size * longest, dtype=torch.uint8)
        gather_into(every, torch.cat([own, own.new_zeros(longest - len(own))]))
        rows = zip(every.view(self.size, longest), sizes.tolist(), strict=True)
        return [json.loads(row[:size].numpy().tobytes()) for row, size in rows]

    def dealt(self, stack: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """`function(stack)` `(n, …)` where it takes each of the n by itself: a rank computes its slice of them."""
        each = -(-len(stack) // self.size)
        own = stack[self.rank * each : (self.rank + 1) * each]
        if len(own) < each:
            own = torch.cat([own, own.new_zeros(each - len(own), *own.shape[1:])])
        found = function(own).contiguous()
        every = found.new_empty(self.size * each, *found.shape[1:])
        gather_into(every, found)
        return every[: len(stack)]


def store() -> dist.Store:
    """What the ranks keep between them, by which they have found each other."""
    return dist.distributed_c10d._get_default_store()


class GradientSum:
    """Sums the gradients of `parameters` over the ranks.

    After `arm` the next backward pass is the last of a step: each bucket of gradients travels as soon as it is whole,
    from the last layers to the first. `finish` waits for all. The sum is the same on every rank, bit by bit.
    """

    def __init__(self, ranks: Ranks, parameters: Iterable[Tensor]):
        self.ranks, self.armed = ranks, False
        self.buckets: list[list[Tensor]] = []
        self.place: dict[Tensor, int] = {}
        size, kind = 0, None
        for p in reversed(list(parameters)):
            if not self.buckets or size + p.nbytes > BUCKET or (p.dtype, p.device) != kind:
                self.buckets.append([])
                size, kind = 0, (p.dtype, p.device)
            self.buckets[-1].append(p)
            self.place[p] = len(self.buckets) - 1
            size += p.nbytes
            p.register_post_accumulate_grad_hook(self.ready)
        self.left: list[int] = []  # gradients that each bucket waits for
        self.travelling: list[tuple[Any, Tensor]] = []

    @property
    def bytes(self) -> float:
        """What each rank sends in a step, by the ring algorithm: almost twice the gradients."""
        return 2 * sum(p.nbytes for p in self.place) * (self.ranks.size - 1) / self.ranks.size

    def arm(self) -> None:
        """The backward pass that comes is the last of the step."""
        self.armed, self.left, self.travelling = True, [len(bucket) for bucket in self.buckets], []

    def ready(self, parameter: Tensor) -> None:
        """The gradient of a parameter is whole."""
        if self.armed:
            self.left[self.place[parameter]] -= 1
            while len(self.travelling) < len(self.buckets) and not self.left[len(self.travelling)]:
                self.send(self.buckets[len(self.travelling)])

    def send(self, bucket: list[Tensor]) -> None:
        """Begin to sum a bucket; the buckets of all ranks go in the same order."""
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
        self.travelling.append((dist.all_reduce(flat, async_op=True), flat))

    def finish(self) -> None:
        """Wait until every gradient is the sum of all ranks'. One that no rank has stays None."""
        if not self.armed:  # this rank had nothing to do in the step
            self.arm()
        for bucket in self.buckets[len(self.travelling) :]:
            self.send(bucket)
        lacking = [float(p.grad is None) for p in self.place]
        (lack,) = self.ranks.sum([sum(lacking)])
        everywhere = self.ranks.sum(lacking) if lack else lacking
        nobody = {p for p, count in zip(self.place, everywhere, strict=True) if count == self.ranks.size}
        for bucket, (work, flat) in zip(self.buckets, self.travelling, strict=True):
            work.wait()
            for p, gradient in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = None if p in nobody else gradient.view(p.shape)
        self.armed, self.travelling = False, []
