"""Packing: which tokens are in which training row.

A row is T+1 tokens: T inputs and, one to the right, T targets. Documents are laid end to end in it, each begun by the
delimiter `<eot>`, which is thereby the target after the last token of the document before. There is no mask between
documents, so the places of the delimiters decide what the model learns about ends:

    <eot> Once upon a time … <eot> The hen sat … <eot>                 documents that fit, and a last delimiter
    h of the realm and all the king's men were sworn to keep the       a window of a longer document, alone
    and was never seen again. <eot> The hen sat … <eot> Long ago, w    its tail, then a document, then a head

- A document that fits is one piece. A longer one is cut into windows of T+1 tokens, neighbours sharing one
  token so that every token is a target once, at a phase drawn anew in each epoch; what is left over are its
  head and its tail.
- A delimiter is only where a document begins, and as a target only where one ends: what does not begin its
  document (a window, a tail) begins a row, with its own first token as context; what does not end it (a window,
  a head) ends the row. Every document's end is a target once an epoch, like each of its tokens.
- Each source repeats, reshuffled per epoch. Its pieces are merged with those of the other sources by
  (tokens of the source before the piece) / (share of the source), so every stretch of a run holds the
  proportions that were asked for, however long the run.
- In that order pieces pass through a small buffer; each row takes the oldest piece, then always the longest
  that still fits (best-fit packing, Ding et al. 2024, arXiv:2404.10830). A gap that nothing fits is filled with
  tokens that are laid out twice: with more of the document whose head stands there, or with the beginning of one
  that waits; a gap of more than an eighth of the row by splitting a document that waits into a head and a tail.

A row depends only on the documents, the weights, the seed and T, not on the length of the run or on what was asked
before. Rows are laid out in order, as far as they are asked for, some 400,000 pieces a second, and remembered (12 bytes
a piece, 8 a row): a run resumed at its millionth row first waits some seconds.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jupyter_gpt.data.documents import Documents
from jupyter_gpt.errors import GPTError

BUFFER = 1024  # pieces to choose from, at most, and no more than one epoch has: enough for exact fits, few enough to
# keep the sources' order, and that those which fit well are not seen in many epochs before the others in one
SPLIT = 1 / 8  # of a row: a larger gap is filled by splitting a document rather than with tokens laid out twice
STRETCH = 1 << 21  # tokens merged at a time
BLOCK = 1 << 16  # tokens: small sources are shuffled several epochs at a time
INSIDE, HEAD, TAIL, WHOLE = range(4)  # kinds of pieces: bit 0, it begins its document; bit 1, it ends it


class Part(NamedTuple):
    """Cells `column : column+length` of a row hold document `document` from its token `start` on."""

    document: int
    start: int
    length: int
    column: int


class Rows:
    """The training rows of `documents`: row i is the same whenever and in whatever order it is asked for.

    documents: what `prepare` made. context: T. weights: sampling proportions, one a source (default: the documents').
    Safe to use from several threads.
    """

    def __init__(self, documents: Documents, context: int, seed: int = 0, weights: Sequence[float] | None = None):
        self.documents, self.context, self.seed = documents, context, seed
        weights = documents.weights if weights is None else weights
        self.shares = [weight / sum(weights) for weight in weights]
        self._tokens = np.asarray(documents.tokens)  # slicing a memmap costs three times as much
        self._position, self._length, self._first = array("q"), array("i"), array("q", [0])
        self._packer = self._pack()
        self._lock = threading.Lock()
        # Tokens of the pieces laid out so far; documents split that fit in a row; tokens laid out twice.
        self.offered = self.split = self.repeated = 0

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """Rows by their indices: (B, T+1) int64; inputs are [:, :-1] and targets [:, 1:]."""
        out = np.full((len(indices), self.context + 1), self.documents.eot, np.int64)
        if len(indices):
            self._lay_out(max(indices) + 1)
        for row, i in enumerate(indices):
            column = 0
            for p in range(self._first[i], self._first[i + 1]):
                position, length = self._position[p], self._length[p]
                out[row, column : column + length] = self._tokens[position : position + length]
                column += length
        return out

    def documents_of(self, row: int) -> list[Part]:
        """The documents in a row, left to right. A last cell beyond them is a closing delimiter."""
        self._lay_out(row + 1)
        parts, column = [], 0
        for p in range(self._first[row], self._first[row + 1]):
            position, length = self._position[p], self._length[p]
            d = self._document(position)
            parts.append(Part(d, position - int(self.documents.offsets[d]), length, column))
            column += length
        return parts

    def _document(self, position: int) -> int:
        return int(np.searchsorted(self.documents.offsets, position, side="right")) - 1

    def _lay_out(self, rows: int) -> None:
        with self._lock:
            while len(self._first) <= rows:
                next(self._packer)

    def _pack(self) -> Iterator[None]:
        """Best fit over a buffer of pieces; each `next` finishes one row."""
        pieces, cells = self._pieces(), self.context + 1
        train = self.documents.lengths()[~np.asarray(self.documents.held_out)]
        buffer = min(BUFFER, len(train) + int(train.sum()) // cells)
        # Waiting pieces by kind and length, as (number, position), the oldest of a length first.
        buckets: list[list[deque[tuple[int, int]]]] = [[deque() for _ in range(cells + 1)] for _ in range(4)]
        lengths = [0] * 4  # bit L is set when a piece of length L waits: the longest that fits is found in one step
        ages: deque[tuple[int, int, int]] = deque()  # (number, kind, length), oldest first
        used: set[int] = set()  # numbers still in `ages` whose pieces are packed
        number = 0

        def put(position: int, length: int, kind: int) -> None:
            nonlocal number
            buckets[kind][length].append((number, position))
            ages.append((number, kind, length))
            lengths[kind] |= 1 << length
            number += 1

        def take(kind: int, length: int) -> int:
            taken, position = buckets[kind][length].popleft()
            if not buckets[kind][length]:
                lengths[kind] ^= 1 << length
            used.add(taken)
            return position

        def oldest() -> tuple[int, int]:
            while ages[0][0] in used:
                used.remove(ages.popleft()[0])
            return ages[0][1:]

        for _ in range(buffer):
            put(*next(pieces))

        while True:
            kind, length = oldest()
            row: list[tuple[int, int]] = []  # (position, length)
            tail = head = False  # whether the row has one
            room = cells
            while True:
                position = take(kind, length)
                put(*next(pieces))
                self.offered += length
                room -= length
                if kind == INSIDE:  # the last of a document that was cut off may be short: more before it is repeated
                    row.append((position - room, cells))
                    self.repeated += room
                    break
                # A tail goes first and a head last; the others before the head.
                row.insert(0 if kind == TAIL else len(row) - head, (position, length))
                tail, head = tail or kind == TAIL, head or kind == HEAD
                # What ends its document needs a delimiter after it: a cell, unless a head follows, which has it.
                fitting = (lengths[WHOLE] if tail else lengths[WHOLE] | lengths[TAIL]) & (1 << room + head) - 1
                fitting |= 0 if head else lengths[HEAD] & (2 << room) - 1
                if fitting:
                    length = fitting.bit_length() - 1
                    kinds = (HEAD,) * (not head) + (TAIL,) * (not tail and length < room + head)
                    kind = next((kind for kind in kinds if lengths[kind] >> length & 1), WHOLE)
                    continue
                if head:
                    position, length = row[-1]
                    row[-1] = (position, length + room)
                    self.repeated += room
                elif room > SPLIT * cells and lengths[WHOLE]:
                    length = lengths[WHOLE].bit_length() - 1
                    position = take(WHOLE, length)
                    row.append((position, room))
                    put(position + room - 1, length - room + 1, TAIL)
                    self.offered += room
                    self.split += 1
                elif room > 1:  # one free cell holds the delimiter that closes the last document
                    kind, length = oldest()
                    position = buckets[kind][length][0][1]
                    begin = position if kind in (HEAD, WHOLE) else self.documents.offsets[self._document(position)]
                    row.append((int(begin), room))
                    self.repeated += room
                break
            for position, length in row:
                self._position.append(position)
                self._length.append(length)
            self._first.append(len(self._position))
            yield

    def _pieces(self) -> Iterator[tuple[int, int, int]]:
        """All pieces (position in tokens, length, kind) in order, the sources merged by their shares; endless."""
        sources = [(i, share) for i, share in enumerate(self.shares) if share > 0]
        streams = [self._epochs(i) for i, _ in sources]
        empty = np.empty(0, np.int64)
        pending = [(empty, empty, empty, np.empty(0))] * len(sources)  # pieces and keys not yet merged
        supplied = [0] * len(sources)
        end = 0
        while True:
            end += STRETCH
            taken = []
            for j, (_, share) in enumerate(sources):
                parts = [pending[j]]
                while supplied[j] / share < end:
                    position, length, kind = next(streams[j])
                    before = supplied[j] + np.cumsum(length) - length
                    parts.append((position, length, kind, before / share))
                    supplied[j] += int(length.sum())
                merged = [np.concatenate(column) for column in zip(*parts, strict=True)]
                cut = int(np.searchsorted(merged[-1], end))
                taken.append([column[:cut] for column in merged])
                pending[j] = tuple(column[cut:] for column in merged)
            *columns, key = (np.concatenate(column) for column in zip(*taken, strict=True))
            order = np.argsort(key, kind="stable")
            yield from zip(*(column[order].tolist() for column in columns), strict=True)

    def _epochs(self, source: int) -> Iterator[tuple[np.ndarray, ...]]:
        """The pieces of one source: blocks of whole epochs (positions, lengths, kinds), each epoch shuffled;
        endless."""
        documents = self.documents.training(source)
        begin = np.asarray(self.documents.offsets)[documents]
        size = self.documents.lengths()[documents]
        epochs = -(-BLOCK // max(1, int(size.sum())))
        documents, begin, size = (np.tile(column, epochs) for column in (documents, begin, size))
        epoch = np.repeat(np.arange(epochs), len(documents) // epochs)
        block = 0
        while True:
            random = np.random.default_rng([self.seed, source, block])
            block += 1
            which, start, length, kind = self._cut(documents, size, random)
            if not len(which):
                raise GPTError(f"{self.documents.names[source]} has no document to train on that fills a row")
            order = np.lexsort((random.random(len(which)), epoch[which]))
            yield (begin[which] + start)[order], length[order], kind[order]

    def _cut(self, documents: np.ndarray, size: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, ...]:
        """The documents of these indices and sizes in pieces: see `cut`."""
        return cut(size, self.documents.ended()[documents], self.context, random)


def cut(size: np.ndarray, ended: np.ndarray, context: int, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Cuts documents of `size` (D,) into pieces of up to context+1: (document, start, length, kind), each (P,).

    Pieces of one document overlap by one token: a piece's first token is context only, never a target. `ended` (D,)
    says whether a document has its end or was cut off: then nothing may follow its last piece, and where it does
    not fill a row it is left out.
    """
    T = context
    fits = size <= T  # its end is a target too
    whole, long = np.flatnonzero(fits & ended), np.flatnonzero(~fits)
    phase = random.integers(0, T, len(long))
    windows = (size[long] - 1 - phase) // T
    document = np.repeat(long, windows)
    nth = np.arange(windows.sum()) - np.repeat(np.cumsum(windows) - windows, windows)
    last = phase + windows * T  # where the tail begins, as the last token of the last window
    which = np.concatenate([whole, document, long, long])
    inside = np.repeat(phase, windows) + nth * T
    start = np.concatenate([np.zeros_like(whole), inside, np.zeros_like(long), last])
    length = np.concatenate([size[whole], np.full(len(document), T + 1), phase + 1, size[long] - last])
    kind = np.repeat([WHOLE, INSIDE, HEAD], [len(whole), len(document), len(long)])
    kind = np.concatenate([kind, np.where(ended[long], TAIL, INSIDE)])
    useful = (length > 1) | (kind == TAIL)  # a single token has no target, but for the end after it
    return which[useful], start[useful], length[useful], kind[useful]


def validation_rows(documents: Documents, context: int) -> tuple[np.ndarray, np.ndarray]:
    """The held-out documents in their order: rows (R, T+1) int64, and a mask (R, T) of the targets that count.

    A row begins where a document does, as rows do in training, or inside one that is longer than a row: of its
    windows, neighbours share one token. What does not fit in the rest of a row, its end included, begins the next. So
    every held-out token is a target once, and so is the delimiter at each end; what the row is filled up with beyond
    it is masked out. R is 0 when nothing is held out.
    """
    cells = context + 1
    rows, last = [], []  # and of each row the column of the last target that counts
    free = False  # whether that is the end of a document, after which another may follow
    ended = documents.ended()
    for d in np.flatnonzero(documents.held_out):
        tokens, cut_off = documents[d], not ended[d]
        if free and tokens[0] == documents.eot and last[-1] + len(tokens) <= context:
            rows[-1][last[-1] : last[-1] + len(tokens)] = tokens
            last[-1] += len(tokens) - cut_off
        else:
            for first in range(0, len(tokens) - cut_off, context):
                window = tokens[first : first + cells]
                rows.append(np.full(cells, documents.eot, np.int64))
                rows[-1][: len(window)] = window
                last.append(min(len(window) - cut_off, context))
        free = not cut_off
    if not rows:
        return np.empty((0, cells), np.int64), np.empty((0, context), bool)
    return np.stack(rows), np.arange(1, cells) <= np.array(last)[:, None]
