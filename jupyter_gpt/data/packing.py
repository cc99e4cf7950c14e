"""Packing: which tokens stand in which training row.

A row is T+1 tokens: T inputs and, one to the right, T targets. Documents are laid end to end in it, each
begun by the delimiter, and a row begins where a piece begins:

    <eot> Once upon a time … <eot> The hen sat … <eot> Tom had a re    cropped at the row's end
    <eot> import os … <eot> Mia and the … <eot>                        just fit, and a last delimiter
    h of the realm and all the king's men were sworn to keep the       a window of a longer document

- A document that fits is one piece. A longer one is cut into windows of T+1 tokens, neighbours sharing one
  token so that every token is a target once, at a phase drawn anew in each epoch; its two short ends are
  pieces that begin with the delimiter too.
- Each source repeats, reshuffled per epoch. Its pieces are merged with those of the other sources by
  (tokens of the source before the piece) / (share of the source), so every stretch of a run holds the
  proportions that were asked for, however long the run.
- In that order pieces pass through a small buffer; each row takes the oldest piece, then always the longest
  that still fits (best-fit packing, Ding et al. 2024, arXiv:2404.10830). When none fits, the row ends either
  with the shortest, cropped (its tail is lost for this epoch), or, where that would lose more than there is
  room, with the beginning of the oldest, which the next row begins with again.

A row depends only on the documents, the weights, the seed and T, not on the length of the run or on what was
asked before. Rows are laid out in order, as far as they are asked for, some 400,000 pieces a second, and
remembered (12 bytes a piece, 8 a row): a run resumed at its millionth row first waits some seconds.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jupyter_gpt.data.documents import Documents

BUFFER = 1024  # pieces to choose from: enough for exact fits, few enough to keep the sources' order
STRETCH = 1 << 21  # tokens merged at a time
BLOCK = 1 << 16  # tokens: small sources are shuffled several epochs at a time


class Part(NamedTuple):
    """Cells `column : column+length` of a row hold document `document` from its token `start` on.

    When the part begins inside its document and does not fill the row, its first cell holds the delimiter
    instead of token `start` (which was a target elsewhere).
    """

    document: int
    start: int
    length: int
    column: int


class Rows:
    """The training rows of `documents`: row i is the same whenever and in whatever order it is asked for.

    documents: what `prepare` made. context: T. weights: sampling proportions, one a source (default: the
    documents'). Safe to use from several threads.
    """

    def __init__(
        self, documents: Documents, context: int, seed: int = 0, weights: Sequence[float] | None = None
    ):
        self.documents, self.context, self.seed = documents, context, seed
        weights = documents.weights if weights is None else weights
        self.shares = [weight / sum(weights) for weight in weights]
        self._tokens = np.asarray(documents.tokens)  # slicing a memmap costs three times as much
        self._position, self._length, self._first = array("q"), array("i"), array("q", [0])
        self._packer = self._pack()
        self._lock = threading.Lock()
        # Tokens of the pieces laid out so far; of them, lost where a row ended; beside them, laid out twice.
        self.offered = self.cropped = self.repeated = 0

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """Rows by their indices: (B, T+1) int64; inputs are [:, :-1] and targets [:, 1:]."""
        cells = self.context + 1
        out = np.full((len(indices), cells), self.documents.eot, np.int64)
        if len(indices):
            self._lay_out(max(indices) + 1)
        for row, i in enumerate(indices):
            column = 0
            for p in range(self._first[i], self._first[i + 1]):
                position, length = self._position[p], self._length[p]
                skip = length < cells  # its first cell keeps the delimiter
                out[row, column + skip : column + length] = self._tokens[position + skip : position + length]
                column += length
        return out

    def documents_of(self, row: int) -> list[Part]:
        """The documents that stand in a row, left to right. A last cell beyond them is a closing
        delimiter."""
        self._lay_out(row + 1)
        parts, column = [], 0
        for p in range(self._first[row], self._first[row + 1]):
            position, length = self._position[p], self._length[p]
            d = int(np.searchsorted(self.documents.offsets, position, side="right")) - 1
            parts.append(Part(d, position - int(self.documents.offsets[d]), length, column))
            column += length
        return parts

    def _lay_out(self, rows: int) -> None:
        with self._lock:
            while len(self._first) <= rows:
                next(self._packer)

    def _pack(self) -> Iterator[None]:
        """Best fit over a buffer of pieces; each `next` finishes one row."""
        pieces = self._pieces()
        # Waiting pieces by length, as (number, position), the oldest of a length first.
        buckets: list[deque[tuple[int, int]]] = [deque() for _ in range(self.context + 2)]
        lengths = 0  # bit L is set when a piece of length L waits: the longest that fits is found in one step
        ages: deque[tuple[int, int]] = deque()  # (number, length), oldest first
        used: set[int] = set()  # numbers still in `ages` whose pieces are packed
        number = 0
        while True:
            while len(ages) - len(used) < BUFFER:
                position, length = next(pieces)
                buckets[length].append((number, position))
                ages.append((number, length))
                lengths |= 1 << length
                number += 1
            while ages[0][0] in used:
                used.remove(ages.popleft()[0])
            room = self.context + 1
            length = ages[0][1]
            while room > 1:  # one free cell holds the delimiter that closes the last document
                taken, position = buckets[length].popleft()
                if not buckets[length]:
                    lengths ^= 1 << length
                used.add(taken)
                fits = min(length, room)
                self._position.append(position)
                self._length.append(fits)
                self.offered += length
                self.cropped += length - fits
                room -= fits
                fitting = lengths & ((1 << room) - 1)  # up to room - 1: the delimiter has its cell
                if fitting:
                    length = fitting.bit_length() - 1
                    continue
                longer = lengths >> room  # never 0: the buffer holds more than one row takes
                length = room + (longer & -longer).bit_length() - 1
                if (
                    1 < room <= length - room
                ):  # cropping the shortest would lose more than the row has room for
                    while ages[0][0] in used:
                        used.remove(ages.popleft()[0])
                    self._position.append(buckets[ages[0][1]][0][1])
                    self._length.append(room)
                    self.repeated += room
                    break
            self._first.append(len(self._position))
            yield

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """All pieces (position in tokens, length) in order, the sources merged by their shares; endless."""
        sources = [(i, share) for i, share in enumerate(self.shares) if share > 0]
        streams = [self._epochs(i) for i, _ in sources]
        empty = np.empty(0, np.int64)
        held = [(empty, empty, np.empty(0))] * len(sources)  # positions, lengths, keys not yet merged
        supplied = [0] * len(sources)
        end = 0
        while True:
            end += STRETCH
            taken = []
            for j, (_, share) in enumerate(sources):
                parts = [held[j]]
                while supplied[j] / share < end:
                    position, length = next(streams[j])
                    before = supplied[j] + np.cumsum(length) - length
                    parts.append((position, length, before / share))
                    supplied[j] += int(length.sum())
                position, length, key = (np.concatenate(column) for column in zip(*parts, strict=True))
                cut = int(np.searchsorted(key, end))
                taken.append((position[:cut], length[:cut], key[:cut]))
                held[j] = (position[cut:], length[cut:], key[cut:])
            position, length, key = (np.concatenate(column) for column in zip(*taken, strict=True))
            order = np.argsort(key, kind="stable")
            yield from zip(position[order].tolist(), length[order].tolist(), strict=True)

    def _epochs(self, source: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The pieces of one source: blocks of whole epochs (positions, lengths), each epoch shuffled;
        endless."""
        documents = self.documents.training(source)
        begin = np.asarray(self.documents.offsets)[documents]
        size = self.documents.lengths()[documents]
        tokens = int(size.sum())
        if tokens == 0:
            raise ValueError(f"{self.documents.names[source]} has no training tokens")
        epochs = -(-BLOCK // tokens)
        begin, size = np.tile(begin, epochs), np.tile(size, epochs)
        epoch = np.repeat(np.arange(epochs), len(documents))
        block = 0
        while True:
            random = np.random.default_rng([self.seed, source, block])
            block += 1
            which, start, length = cut(size, self.context, random)
            order = np.lexsort((random.random(len(which)), epoch[which]))
            yield (begin[which] + start)[order], length[order]


def cut(size: np.ndarray, context: int, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Cuts documents of `size` (D,) into pieces of up to context+1: (document, start, length), each (P,).

    Pieces of one document overlap by one token: a piece's first token is context only, never a target.
    """
    T = context
    fits = size <= T + 1
    whole, long = np.flatnonzero(fits), np.flatnonzero(~fits)
    phase = random.integers(0, T, len(long))
    windows = (size[long] - 1 - phase) // T
    document = np.repeat(long, windows)
    nth = np.arange(windows.sum()) - np.repeat(np.cumsum(windows) - windows, windows)
    last = phase + windows * T  # where the tail begins, as the last token of the last window
    which = np.concatenate([whole, document, long, long])
    inside = np.repeat(phase, windows) + nth * T
    start = np.concatenate([np.zeros_like(whole), inside, np.zeros_like(long), last])
    length = np.concatenate([size[whole], np.full(len(document), T + 1), phase + 1, size[long] - last])
    useful = length > 1  # a single token has no target
    return which[useful], start[useful], length[useful]


def validation_rows(documents: Documents, context: int) -> tuple[np.ndarray, np.ndarray]:
    """The held-out documents in their order: rows (R, T+1) int64, and a mask (R, T) of the targets that count.

    A row begins where a document does, as rows do in training, or inside one that is longer than a row: of its
    windows, neighbours share one token. What does not fit in the rest of a row begins the next. So every held-out
    token is a target once, and so is the delimiter after a row's last document; what the row is filled up with
    beyond it is masked out. R is 0 when nothing is held out.
    """
    cells = context + 1
    rows, filled = [], []
    for d in np.flatnonzero(documents.held_out):
        tokens = documents[d]
        if rows and filled[-1] + len(tokens) <= cells:
            rows[-1][filled[-1] : filled[-1] + len(tokens)] = tokens
            filled[-1] += len(tokens)
            continue
        for first in range(0, max(1, len(tokens) - 1), context):
            window = tokens[first : first + cells]
            rows.append(np.full(cells, documents.eot, np.int64))
            rows[-1][: len(window)] = window
            filled.append(len(window))
    if not rows:
        return np.empty((0, cells), np.int64), np.empty((0, context), bool)
    return np.stack(rows), np.arange(1, cells) <= np.array(filled)[:, None]
