"""Decoding steps in memory that stays in place, so that a GPU can replay each as one CUDA graph.

A step of a small model is some five hundred kernels of a few microseconds; launching them one by one takes ten times as
long as running them. A graph is captured for a number of rows (a power of two) and of columns (a multiple of 512); it
reads everything that changes, the column to write included, from tensors that stay in place. Attention reads only the
filled part, with a kernel that takes a mask (`decode_forward.py`). Capturing happens on the thread that decodes; where
it fails, steps run uncaptured.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache

import torch
from torch import Tensor

from jupyter_gpt.inference.decode_forward import DecodeForward
from jupyter_gpt.inference.kv_cache import KVCache

COLUMNS = 512
PATIENCE = 3  # plain steps of a size before it is captured: capturing costs about as many
CAPTURING_DEVICES = ("cuda",)


class GraphedSteps:
    """One-token steps of a decoding forward. On a CPU the same code runs uncaptured, which is how it is tested."""

    def __init__(self, forward: DecodeForward):
        self.forward = forward
        self.home: Tensor | None = None  # the keys of the first layer: graphs are valid while the cache lies there
        self.graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self.uses: Counter[tuple[int, int]] = Counter()
        self.may_capture, self.pool = True, None

    @torch.inference_mode()
    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor, kv: KVCache) -> Tensor:
        """fp32 logits `(B, 1, V)` after new tokens `(B, 1)`, whose column `kv.append` has added. Overwritten by the
        next step."""
        rows, length = len(ids), kv.length
        for layer in kv.layers:
            if length > layer.keys.shape[2]:
                layer.grow(length)
            layer.length = length
        if kv.layers[0].keys is not self.home:
            self.bind(kv)
        room, columns = self.home.shape[0], self.home.shape[2]
        self.ids[:rows], self.positions[:rows] = ids, positions
        self.column.fill_(length - 1)
        self.bias[:rows, 0, 0, :length].zero_().masked_fill_(~mask, float("-inf"))
        size = min(room, 1 << (rows - 1).bit_length()), min(columns, -(-length // COLUMNS) * COLUMNS)
        return self.replay(size)[:rows]

    def bind(self, kv: KVCache) -> None:
        """Make the input tensors for the place where this cache lies, and drop the graphs of an older place."""
        self.graphs.clear()
        self.uses.clear()
        self.pool = None  # it was freed with the last graph in it
        self.layers = [(layer.keys, layer.values) for layer in kv.layers]
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
        return self.forward.run(self.ids[:rows], self.positions[:rows], bias, update, 1)

    def replay(self, size: tuple[int, int]) -> Tensor:
        """The step from its graph, which is captured when its size has been used a few times."""
        self.uses[size] += 1
        due = self.uses[size] > PATIENCE and self.may_capture and self.home.device.type in CAPTURING_DEVICES
        if size not in self.graphs and due:
            try:
                self.graphs[size] = self.capture(size)
            except RuntimeError as error:
                self.may_capture = False
                warnings.warn(f"decoding without CUDA graphs: {error}", stacklevel=2)
        if size not in self.graphs:
            return self.step(*size)
        graph, logits = self.graphs[size]
        graph.replay()
        return logits

    def capture(self, size: tuple[int, int]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A graph of the step and the tensor that it writes logits to.

        The step first runs once on the capturing stream, where libraries allocate their workspaces; running a step
        twice changes nothing. All graphs share one memory pool, since only one replays at a time.
        """
        with torch.cuda.device(self.home.device):
            current, stream = torch.cuda.current_stream(), capture_stream(self.home.device)
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                self.step(*size)
            current.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self.pool, stream=stream, capture_error_mode="thread_local"):
                logits = self.step(*size)
        return graph, logits


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One per device: cuBLAS keeps a workspace, 32 MiB on an H100, for each stream it has seen."""
    return torch.cuda.Stream(device)
