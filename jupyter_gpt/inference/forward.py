"""One pass of a model over new tokens of every row of a batch, for any architecture.

`forward_of` looks at a module once and returns a function `(ids, positions, mask, cache, keep) -> logits`:
our decoding forward where there is one, else the module's own with our cache, and for a model whose state is not keys
and values (state-space and other recurrent layers) one that reads the whole sequence again at each step: slow, but
right.

On a GPU our forward's steps are replayed as CUDA graphs. A step of a small model is some five hundred kernels of a few
microseconds; launching them one by one takes ten times as long as running them. A graph is captured for a number of
rows (a power of two) and of columns (a multiple of 512); it reads everything that changes, the column to write
included, from tensors that stay in place. Attention reads only the filled part, with a kernel that takes a mask
(`decode_forward.py`). Capturing happens on the thread that decodes; where it fails, steps run uncaptured.
"""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from jupyter_gpt.inference import decode_forward
from jupyter_gpt.inference.decode_forward import DecodeForward, in_window
from jupyter_gpt.inference.kv_cache import KVCache
from jupyter_gpt.nn.modules import (
    base_of,
    eval_mode,
    forget_length,
    growing_rotations,
    keeps_keys_and_values,
    takes_cache,
)

PATIENCE = 6  # decoding steps before the weights are prepacked; on a GPU it is done at once, before graphs are captured
WIDE = 12  # rows from which bf16 weights are multiplied faster than those of 4 bits
COLUMNS = 512
GRAPH_PATIENCE = 3  # plain steps of a size before it is captured: capturing costs about as many
CAPTURING_DEVICES = ("cuda",)


def own_forward(module: nn.Module) -> Callable:
    """The module's forward with our cache."""
    parameters = inspect.signature(base_of(module).forward).parameters
    name = "cache" if "cache" in parameters else "past_key_values"  # its name in newer and older transformers
    rotary = growing_rotations(module)

    @torch.inference_mode()
    def forward(ids: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, keep: int) -> Tensor:
        options = {}
        if "position_ids" in parameters:
            options["position_ids"] = positions
        if "logits_to_keep" in parameters:
            options["logits_to_keep"] = keep
        for part in rotary if cache.length == ids.shape[1] else ():
            forget_length(part)
        with eval_mode(module):
            out = module(input_ids=ids, attention_mask=mask.long(), use_cache=True, **{name: cache}, **options)
        return out.logits[:, -keep:].float()

    return forward


def uncached_forward(module: nn.Module) -> Callable:
    """A forward that caches the ids of every row and reads them all again."""
    options = {"use_cache": False} if "use_cache" in inspect.signature(base_of(module).forward).parameters else {}

    @torch.inference_mode()
    def forward(ids: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, keep: int) -> Tensor:
        all_ids = cache.update(ids[:, None, :, None], ids.new_zeros(len(ids), 1, ids.shape[1], 0), 0)[0][:, 0, :, 0]
        logits = []
        with eval_mode(module):
            for row_ids, valid in zip(all_ids, mask, strict=True):
                if not bool(valid.any()):  # all padding so far: its prompt is shorter than its neighbours'
                    logits.append(torch.zeros(1, base_of(module).config.vocab_size, device=ids.device))
                    continue
                logits.append(module(input_ids=row_ids[valid][None], **options).logits[0, -keep:].float())
        width = max(len(x) for x in logits)
        return torch.stack([torch.cat([x.new_zeros(width - len(x), x.shape[1]), x]) for x in logits])

    return forward


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
        for window, bias in self.biases.items():
            seen = mask if window is None else mask & in_window(mask, positions, window)[:, 0]
            bias[:rows, 0, 0, :length].zero_().masked_fill_(~seen, float("-inf"))
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
        self.biases = {
            window: torch.full(shape, float("-inf"), dtype=self.home.dtype, device=device)
            for window in (None, *self.forward.model.windows)
        }

    def step(self, rows: int, columns: int) -> Tensor:
        """The step itself, for the first `rows` rows and `columns` columns."""

        def update(k: Tensor, v: Tensor, number: int) -> tuple[Tensor, Tensor]:
            keys, values = self.layers[number]
            keys[:rows].index_copy_(2, self.column, k)
            values[:rows].index_copy_(2, self.column, v)
            return keys[:rows, :, :columns], values[:rows, :, :columns]

        biases = {window: bias[:rows, :, :, :columns] for window, bias in self.biases.items()}
        return self.forward.run(self.ids[:rows], self.positions[:rows], biases, update, 1)

    def replay(self, size: tuple[int, int]) -> Tensor:
        """The step from its graph, which is captured when its size has been used a few times."""
        self.uses[size] += 1
        due = self.uses[size] > GRAPH_PATIENCE and self.may_capture and self.home.device.type in CAPTURING_DEVICES
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


class Decoder:
    """The decoding forward, with weights prepacked as soon as enough is decoded to pay for it and, on a GPU, steps
    captured as CUDA graphs. A batch of many rows on 4-bit weights has a copy of them in bf16, freed with it."""

    def __init__(self, module: nn.Module, forward: DecodeForward, static: bool = False):
        self.module, self.steps_decoded = module, 0
        may_pack = decode_forward.worth_packing(module)
        prepacked = decode_forward.prepacked(module) if may_pack else None
        self.forward = decode_forward.decode_forward(module, prepacked) if prepacked else forward
        self.may_pack = may_pack and prepacked is None
        self.static = static or next(module.parameters()).device.type == "cuda"
        self.graphed: GraphedSteps | None = None
        self.wide: DecodeForward | None = None
        self.wide_steps, self.may_widen = 0, decode_forward.worth_widening(module)

    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, keep: int) -> Tensor:
        width = ids.shape[1]
        self.steps_decoded += cache.length > width
        if self.may_pack and self.steps_decoded >= (1 if self.static else PATIENCE):
            self.forward = decode_forward.decode_forward(self.module, decode_forward.prepack(self.module))
            self.may_pack = False
        if self.may_widen and len(ids) >= WIDE and cache.length > width:
            self.wide_steps += 1
            if self.wide_steps >= PATIENCE:
                self.wide = decode_forward.decode_forward(self.module, decode_forward.widened)
                self.may_widen = False
        if self.wide and len(ids) >= WIDE:
            return self.wide(ids, positions, mask, cache, keep)
        if self.static and width == 1 < cache.length:
            self.graphed = self.graphed or GraphedSteps(self.forward)
            return self.graphed(ids, positions, mask, cache)
        return self.forward(ids, positions, mask, cache, keep)


def forward_of(module: nn.Module) -> Callable:
    """The fastest forward that is right for this module. From an Apple GPU, which has no float64 to sample in, the
    logits come to the host."""
    forward = fastest(module)
    if next(module.parameters()).device.type != "mps":
        return forward
    return lambda *arguments: forward(*arguments).cpu()


def fastest(module: nn.Module) -> Callable:
    """The forward, whose logits are on the device."""
    forward = decode_forward.decode_forward(module, decode_forward.unpacked)
    if forward is not None:
        return Decoder(module, forward)
    cached = keeps_keys_and_values(module) and takes_cache(module)
    return own_forward(module) if cached else uncached_forward(module)
