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
    """Where the texts of a stream `(1, N)` lie: `lengths` (N together), `positions` `(N,)` from 0 in each, on the device.

    `bounds` `(texts + 1,)` int32 are the places where they begin, and N, for kernels of a GPU; `longest` is at least the
    longest of them.
    """

    lengths: list[int]
    positions: Tensor
    bounds: Tensor
    longest: int


@dataclass(frozen=True, eq=False)
class Stream:
    """A batch as a stream: ids `(1, N)`, the cells that are trained on `(M,)`, their targets `(M,)`, the texts in it."""

    ids: Tensor
    trained: Tensor
    targets: Tensor
    segments: Segments

    @property
    def tokens(self) -> int:
        return self.ids.shape[1]


def stream(batch, device: torch.device | str, padded: bool = False) -> Stream:
    """The cells of a `data.conversation_rows.Batch`, row after row; `padded` keeps the padding, as texts of its own."""
    from jupyter_gpt.data.conversation_rows import IGNORE, PADDING

    document = batch.document.ravel()
    row = np.repeat(np.arange(len(batch.ids)), batch.ids.shape[1])
    kept = np.ones(len(document), bool) if padded else document != PADDING
    document, row = document[kept], row[kept]
    begins = np.flatnonzero(np.diff(document, prepend=-2).astype(bool) | np.diff(row, prepend=-1).astype(bool))
    bounds = np.append(begins, len(document))
    targets = batch.targets.ravel()[kept]
    trained = np.flatnonzero(targets != IGNORE)
    lengths = np.diff(bounds).tolist()

    def there(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if str(device).startswith("cuda"):
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    longest = batch.ids.shape[1] if padded else max(lengths, default=0)
    segments = Segments(lengths, there(batch.positions.ravel()[kept]), there(bounds.astype(np.int32)), longest)
    return Stream(there(batch.ids.ravel()[kept])[None], there(trained), there(targets[trained]), segments)


def groups(lengths: list[int], waste: float = 1.25) -> list[list[int]]:
    """Texts by their numbers, those of like length together, so that padding each group costs little."""
    order = sorted(range(len(lengths)), key=lambda n: lengths[n])
    found: list[list[int]] = []
    real = 0
    for n in order:
        area = lengths[n] * (len(found[-1]) + 1 if found else 1)
        if found and area <= waste * (real + lengths[n]) + 32:
            found[-1].append(n)
            real += lengths[n]
        else:
            found.append([n])
            real = lengths[n]
    return found
