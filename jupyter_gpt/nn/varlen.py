"""Texts laid end to end in one stream, each among itself: what a packed batch is to a model.

Padding is left out where nothing gains from fixed shapes (a CPU); the products run over all tokens at once, only
attention goes text by text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the texts of a stream `(1, N)` lie: `lengths` (N together), `positions` `(N,)` from 0 in each, on the
    device.

    `bounds` `(texts + 1,)` int32 are the places where they begin, and N, for kernels of a GPU; `longest` is at least
    the longest of them.
    """

    lengths: list[int]
    positions: Tensor
    bounds: Tensor
    longest: int


@dataclass(frozen=True, eq=False)
class Stream:
    """A batch as a stream: ids `(1, N)`, the cells that are trained on `(M,)`, their targets `(M,)`, the texts in it.

    `padding` of the N cells hold nothing.
    """

    ids: Tensor
    trained: Tensor
    targets: Tensor
    segments: Segments
    padding: int = 0

    @property
    def tokens(self) -> int:
        return self.ids.shape[1]


def stream(batch, device: torch.device | str, padded: bool = False) -> Stream:
    """The cells of a `data.conversation_rows.Batch`, row after row; `padded` keeps the padding, as texts of its own."""
    return streams(batch, device, batch.ids.size, padded)[0]


def streams(batch, device: torch.device | str, most: int, padded: bool = False) -> list[Stream]:
    """The same in pieces of whole texts, each of at most `most` tokens (more only where one text has more)."""
    from jupyter_gpt.data.conversation_rows import PADDING

    document = batch.document.ravel()
    row = np.repeat(np.arange(len(batch.ids)), batch.ids.shape[1])
    kept = np.ones(len(document), bool) if padded else document != PADDING
    document, row = document[kept], row[kept]
    begins = np.flatnonzero(np.diff(document, prepend=-2).astype(bool) | np.diff(row, prepend=-1).astype(bool))
    bounds = np.append(begins, len(document))
    cells = [array.ravel()[kept] for array in (batch.ids, batch.targets, batch.positions)]
    found, first = [], 0
    for last in range(1, len(bounds)):
        if last == len(bounds) - 1 or bounds[last + 1] - bounds[first] > most:
            here = slice(bounds[first], bounds[last])
            longest = batch.ids.shape[1] if padded else 0
            empty = int((document[here] == PADDING).sum())
            starts = bounds[first : last + 1] - bounds[first]
            found.append(_stream(*(c[here] for c in cells), starts, longest, empty, device))
            first = last
    return found


def _stream(ids, targets, positions, bounds, longest: int, padding: int, device) -> Stream:
    from jupyter_gpt.data.conversation_rows import IGNORE

    def there(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if str(device).startswith("cuda"):
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    trained = np.flatnonzero(targets != IGNORE)
    lengths = np.diff(bounds).tolist()
    segments = Segments(lengths, there(positions), there(bounds.astype(np.int32)), longest or max(lengths))
    return Stream(there(ids)[None], there(trained), there(targets[trained]), segments, padding)


def groups(lengths: list[int], waste: float = 1.25, spare: int = 32) -> list[list[int]]:
    """Texts by their numbers, those of like length together, so that padding each group costs little: at most `spare`
    cells beside `waste` times its tokens."""
    order = sorted(range(len(lengths)), key=lambda n: lengths[n])
    found: list[list[int]] = []
    real = 0
    for n in order:
        area = lengths[n] * (len(found[-1]) + 1 if found else 1)
        if found and area <= waste * (real + lengths[n]) + spare:
            found[-1].append(n)
            real += lengths[n]
        else:
            found.append([n])
            real = lengths[n]
    return found
