"""The KV cache of a batch: memory is allocated ahead, so that a step writes one column and copies nothing.

Rows are aligned on the right: a step writes the same column of every row, and `valid` marks the columns that belong to
a row. transformers' own cache concatenates, which copies everything at each step; this one is a subclass of its
`Cache`, so any of its models can use it. The last row takes the place of a finished one (`drop`); `gather` copies rows
into a new cache, once or several times each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH = 128  # columns taken at once when the ones at hand are full


class Layer(CacheLayerMixin):
    """Keys and values `(rows, heads, columns, width)` of one layer; columns from `length` on are not written yet."""

    is_sliding = False

    def __init__(self, columns: int = GROWTH):
        super().__init__()
        self.columns, self.length, self.rows = columns, 0, 0
        self.is_initialized = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (new_buffer(x, len(x), self.columns) for x in (key_states, value_states))
        self.dtype, self.device, self.rows = key_states.dtype, key_states.device, len(key_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Write the new columns `(B, H, t, h)`; returns views of all columns so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self.length, self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.grow(end)
        keys, values = self.keys, self.values
        if self.rows < len(keys):
            keys, values = keys[: self.rows], values[: self.rows]
        keys.narrow(2, start, end - start).copy_(key_states)
        values.narrow(2, start, end - start).copy_(value_states)
        self.length = end
        return keys.narrow(2, 0, end), values.narrow(2, 0, end)

    def grow(self, columns: int) -> None:
        """Reallocate for `columns` and a quarter more."""
        room = columns + max(GROWTH, columns // 4)
        for name in ("keys", "values"):
            old = getattr(self, name)[: self.rows, :, : self.length]
            new = new_buffer(old, self.rows, room)
            new[:, :, : self.length] = old
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        new = query_length if isinstance(query_length, int) else len(query_length)  # a tensor before transformers 5
        return self.length + new, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name before transformers 5


class KVCache(Cache):
    """`valid` `(B, columns)` marks the columns of each row, `positions` holds the position of its next token."""

    def __init__(self, rows: int, columns: int, device: torch.device):
        self.room = columns
        super().__init__(layer_class_to_replicate=lambda: Layer(columns))
        self.valid = torch.zeros(rows, columns, dtype=torch.bool, device=device)
        self.positions = [0] * rows
        self.length = 0
        self.unmasked = True  # no row has padding

    @torch.inference_mode()
    def append(self, counts: list[int], width: int) -> tuple[Tensor, Tensor]:
        """Add `width` columns, the last `counts[b]` of which belong to row b.

        Returns the positions `(B, width)` of the new tokens and the mask `(B, columns)` of valid columns.
        """
        rows, start, device = len(counts), self.length, self.valid.device
        if start + width > self.valid.shape[1]:
            more = torch.zeros(rows, width + max(GROWTH, start // 4), dtype=torch.bool, device=device)
            self.valid = torch.cat([self.valid[:rows, :start], more], dim=1)
        self.length = start + width
        padding = [width - n for n in counts]
        first = torch.tensor([p - n for p, n in zip(self.positions, padding, strict=True)], device=device)
        at = first[:, None] + torch.arange(width, device=device)
        if any(padding):
            self.unmasked = False
            column = torch.arange(width, device=device)
            self.valid[:rows, start : self.length] = column >= torch.tensor(padding, device=device)[:, None]
            at = at.clamp(min=0)
        else:
            self.valid[:rows, start : self.length] = True
        self.positions = [p + n for p, n in zip(self.positions, counts, strict=True)]
        return at, self.valid[:rows, : self.length]

    def bytes_per_token(self) -> int:
        """Of one row, in all layers."""
        buffers = [x for layer in self.layers for x in (layer.keys, layer.values)]
        return sum(x.shape[1] * x.shape[3] * x.element_size() for x in buffers)

    def truncate(self, columns: int) -> None:
        """Drop the last `columns`; they are overwritten later."""
        self.length -= columns
        self.positions = [position - columns for position in self.positions]
        for layer in self.layers:
            layer.length -= columns

    def columns_of(self, row: int, first: int = 0) -> Tensor | slice:
        """The columns of what a row has read, in order, from its token `first` on."""
        start = self.length - self.positions[row]
        if self.unmasked or bool(self.valid[row, start : self.length].all()):
            return slice(start + first, self.length)
        return self.valid[row, : self.length].nonzero()[first:, 0]

    @torch.inference_mode()
    def close_gaps(self) -> None:
        """Move every row's columns together, aligned on the right of as few columns as they need."""
        if self.unmasked:
            return
        length, columns = max(self.positions), [self.columns_of(row) for row in range(len(self.positions))]
        for row, (count, taken) in enumerate(zip(self.positions, columns, strict=True)):
            for layer in self.layers:
                for buffer in (layer.keys, layer.values):
                    buffer[row, :, length - count : length] = buffer[row, :, taken].clone()
            self.valid[row, : length - count] = False
            self.valid[row, length - count : length] = True
        self.length, self.unmasked = length, min(self.positions) == length
        for layer in self.layers:
            layer.length = length

    def state(self) -> tuple:
        """What `restore` needs to undo passes after this moment, also one that failed."""
        return self.length, list(self.positions), self.unmasked, [layer.length for layer in self.layers]

    def restore(self, state: tuple) -> None:
        self.length, self.positions, self.unmasked, lengths = state
        self.layers = self.layers[: len(lengths)]
        for layer, length in zip(self.layers, lengths, strict=True):
            layer.length = length

    @torch.inference_mode()
    def drop(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        last = len(self.positions) - 1
        if row != last:
            for layer in self.layers:
                layer.keys[row, :, : self.length] = layer.keys[last, :, : self.length]
                layer.values[row, :, : self.length] = layer.values[last, :, : self.length]
            self.valid[row] = self.valid[last]
            self.positions[row] = self.positions[last]
        self.positions.pop()
        for layer in self.layers:
            layer.rows = last


def new_buffer(like: Tensor, rows: int, columns: int) -> Tensor:
    """A buffer for keys or values like `(B, H, t, h)`, zeroed: masked entries are multiplied by 0 and must be finite.

    Columns are rounded up to a multiple of 64, the alignment that attention kernels need of masks.
    """
    return like.new_zeros(rows, like.shape[1], -(-columns // 64) * 64, like.shape[3])


def new_layers(like: list[tuple[Tensor, Tensor]], rows: int, length: int, columns: int) -> list[Layer]:
    """Layers with buffers of `columns` for keys and values like these, `length` of them to be written."""
    layers = []
    for keys, values in like:
        layer = Layer()
        layer.keys, layer.values = new_buffer(keys, rows, columns), new_buffer(values, rows, columns)
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        layer.rows, layer.length = rows, length
        layers.append(layer)
    return layers


@torch.inference_mode()
def gather(parts: list[tuple[KVCache, list[int]]], room: int) -> KVCache:
    """A new cache with rows of others, one after another, aligned on the right, and `room` columns to spare.

    A row may appear several times: that is how one prompt becomes N samples.
    """
    length = max(cache.length for cache, _ in parts)
    rows = sum(len(rows_of) for _, rows_of in parts)
    new = KVCache(rows, length + room, parts[0][0].valid.device)
    new.length, new.unmasked = length, all(cache.unmasked and cache.length == length for cache, _ in parts)
    new.positions = [cache.positions[row] for cache, rows_of in parts for row in rows_of]
    like = [(layer.keys, layer.values) for layer in parts[0][0].layers]
    new.layers += new_layers(like, rows, length, length + room)
    top = 0
    for cache, rows_of in parts:
        start, end = length - cache.length, top + len(rows_of)
        new.valid[top:end, start:length] = cache.valid[rows_of, : cache.length]
        for layer, old in zip(new.layers, cache.layers, strict=True):
            for name in ("keys", "values"):
                target, source = getattr(layer, name), getattr(old, name)
                for first, count, places in runs(rows_of):
                    to = top + first
                    target[to : to + count, :, start:length] = source[places, :, : cache.length]
        top = end
    return new


def runs(rows: list[int]) -> Iterator[tuple[int, int, slice]]:
    """Parts of `rows` that one copy can transfer (one row repeated, or consecutive rows): start, count, rows to
    copy."""
    begin = 0
    for end in range(1, len(rows) + 1):
        step = rows[begin + 1] - rows[begin] if end > begin + 1 else None
        if end < len(rows) and rows[end] - rows[end - 1] in ((0, 1) if step is None else (step,)):
            continue
        count = end - begin
        yield begin, count, slice(rows[begin], rows[begin] + (1 if step == 0 else count))
        begin = end
