"""Decoding steps over memory that stays where it is, so that a GPU can replay each as one CUDA graph.

A step of a small model is some five hundred kernels of a few microseconds; launching them one by one takes
ten times as long as running them. A graph is recorded for a number of rows (a power of two) and of columns (a
multiple of 512) and reads everything that changes, the column to write included, from tensors that stay where
they are. Attention reads the filled part only, by a kernel that takes a mask (`lean.py`), a query block for the heads
of a group. Recording happens on the thread that decodes; where it fails, steps run as they are.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache

import torch
from torch import Tensor

from jupyter_gpt.inference.cache import Rows
from jupyter_gpt.inference.decode_forward import Lean

COLUMNS = 512
PATIENCE = 3  # plain steps of a size before it is recorded: recording costs about as many, and rows come and go
RECORDS = ("cuda",)  # the kinds of device that can


class Steps:
    """One-token steps of a lean model. On a CPU the same code runs unrecorded, which is how it is tested."""

    def __init__(self, lean: Lean):
        self.lean = lean
        self.home: Tensor | None = None  # the keys of the first layer: where they lie, the graphs are good
        self.recorded: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self.met: Counter[tuple[int, int]] = Counter()
        self.record, self.pool = True, None

    @torch.inference_mode()
    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: Rows) -> Tensor:
        """fp32 logits `(B, 1, V)` after new tokens `(B, 1)`, whose column `cache.append` has announced.

        They are good until the next step.
        """
        rows, length = len(ids), cache.length
        for layer in cache.layers:
            if length > layer.keys.shape[2]:
                layer.grow(length)
            layer.length = length
        if cache.layers[0].keys is not self.home:
            self.settle(cache)
        room, columns = self.home.shape[0], self.home.shape[2]
        self.ids[:rows], self.positions[:rows] = ids, positions
        self.column.fill_(length - 1)
        seen = self.bias[:rows, 0, 0, :length]
        seen.zero_().masked_fill_(~mask, float("-inf"))
        size = min(room, 1 << (rows - 1).bit_length()), min(columns, -(-length // COLUMNS) * COLUMNS)
        return self.replay(size)[:rows]

    def settle(self, cache: Rows) -> None:
        """Make the tensors that steps read, for the place where this cache lies; older graphs are useless."""
        self.recorded.clear()
        self.met.clear()
        self.pool = None  # it has gone with the last graph in it
        self.layers = [(layer.keys, layer.values) for layer in cache.layers]
        self.home = self.layers[0][0]
        rows, device = len(self.home), self.home.device
        self.ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros_like(self.ids)
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        shape = (rows, 1, 1, self.home.shape[2])
        self.bias = torch.full(shape, float("-inf"), dtype=self.home.dtype, device=device)

    def step(self, rows: int, columns: int) -> Tensor:
        """The step itself, for the first `rows` rows and `columns` columns."""

        def update(k: Tensor, v: Tensor, number: int) -> tuple[Tensor, Tensor]:
            keys, values = self.layers[number]
            keys[:rows].index_copy_(2, self.column, k)
            values[:rows].index_copy_(2, self.column, v)
            return keys[:rows, :, :columns], values[:rows, :, :columns]

        bias = self.bias[:rows, :, :, :columns]
        return self.lean.run(self.ids[:rows], self.positions[:rows], bias, update, 1)

    def replay(self, size: tuple[int, int]) -> Tensor:
        """The step from its graph, recorded when its size has been met a few times."""
        self.met[size] += 1
        due = self.met[size] > PATIENCE and self.record and self.home.device.type in RECORDS
        if size not in self.recorded and due:
            try:
                self.recorded[size] = self.recording(size)
            except RuntimeError as error:
                self.record = False
                warnings.warn(f"decoding without CUDA graphs: {error}", stacklevel=2)
        if size not in self.recorded:
            return self.step(*size)
        graph, logits = self.recorded[size]
        graph.replay()
        return logits

    def recording(self, size: tuple[int, int]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A graph of the step and the tensor its logits are written to.

        The step runs once on the recording stream first, where libraries make their workspaces; a step twice over is
        the same step. All graphs take what they need in between from one pool: one replays at a time.
        """
        with torch.cuda.device(self.home.device):
            here, aside = torch.cuda.current_stream(), recording_stream(self.home.device)
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                self.step(*size)
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self.pool, stream=aside, capture_error_mode="thread_local"):
                logits = self.step(*size)
        return graph, logits


@cache
def recording_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings on a device: cuBLAS keeps a workspace, 32 MiB on an H100, for each stream it has seen."""
    return torch.cuda.Stream(device)
