"""Conversations in training rows: packed without cross-talk, served by index.

A conversation of n tokens takes n-1 cells of a row, its inputs; the target of a cell is the token after it, or IGNORE
where that token is not trained on. Whole conversations are laid side by side and never cut here; what is left of a row
is padding. A row of two conversations of 6 and 4 tokens (t trained, · not), T = 10:

    ids         a0 a1 a2 a3 a4   b0 b1 b2   p  p
    targets      ·  · a3 a4 a5    · b2 b3   ·  ·
    positions    0  1  2  3  4    0  1  2   0  1
    document     0  0  0  0  0    1  1  1  -1 -1

A cell may attend to the cells before it with the same `document` only. Padding is a document of its own, so that no
cell is without any to attend to.

- The order is that of `packing.Rows`: each source repeats, reshuffled per epoch, and sources are merged by their shares
  of the tokens. Rows are filled best-fit (Ding et al. 2024, arXiv:2404.10830) from a small buffer: each takes the
  oldest conversation that waits, then always the longest that still fits. With a single source no row has
  conversations of two epochs: n epochs are a whole number of rows, with each conversation n times.
- Row i depends only on the conversations, the weights, the seed and T: a run can be resumed at any row.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jupyter_gpt.data.packing import WHOLE, Rows

IGNORE = -100  # a target that is not trained on, as in nn/loss.py
PADDING = -1  # the document of cells that hold nothing
BUFFER = 256  # conversations to choose from, but no more than
EPOCH = 4  # one in so many of all: else those that fit well would be seen in many epochs before the others in one


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of conversations, all `(B, T)`: see the picture above.

    ids int64; targets int64, IGNORE where not trained; positions int64, from 0 in each conversation; document int32,
    0, 1, 2, … from left to right in each row, PADDING elsewhere.
    """

    ids: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    document: np.ndarray

    @property
    def tokens(self) -> int:
        """Cells that hold a conversation."""
        return int((self.document != PADDING).sum())

    @property
    def trained(self) -> int:
        """Targets that are trained on."""
        return int((self.targets != IGNORE).sum())


class ConversationRows(Rows):
    """The training rows of `conversations`: row i is the same whenever and in whatever order it is asked for.

    conversations: a `conversation_dataset.Conversations`, none longer than T+1 tokens. context: T. packed: False gives
    each conversation a row of its own, in the same order. weights: sampling proportions, one a source.
    """

    def __init__(
        self, conversations, context: int, seed: int = 0, packed: bool = True, weights: Sequence[float] | None = None
    ):
        self.packed = packed
        longest = int(conversations.lengths().max(initial=0))
        if longest > context + 1:
            raise ValueError(f"a conversation has {longest} tokens, more than fit in a row of {context}")
        super().__init__(conversations, context, seed, weights)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Rows by their indices."""
        if len(indices):
            self._lay_out(max(indices) + 1)
        pieces = [
            [(self._position[p], self._length[p]) for p in range(self._first[i], self._first[i + 1])] for i in indices
        ]
        return laid_out(self.documents, pieces, self.context)

    def _cut(self, documents: np.ndarray, size: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, ...]:
        """A conversation is never cut."""
        return np.arange(len(size)), np.zeros_like(size), size, np.full(len(size), WHOLE)

    def rows_of(self, inputs: float) -> Iterator[None]:
        """How many rows it takes until they hold so many tokens as inputs; yields now and then, returns it."""
        rows = cells = 0
        while cells < inputs:
            self._lay_out(rows + 1)
            cells += sum(self._length[p] - 1 for p in range(self._first[rows], self._first[rows + 1]))
            rows += 1
            if rows % 256 == 0:
                yield
        return rows

    def _pack(self) -> Iterator[None]:
        pieces = self._pieces()
        count = int((~np.asarray(self.documents.held_out)).sum())
        buffer = max(1, min(BUFFER, count // EPOCH)) if self.packed else 1
        epoch = count if sum(share > 0 for share in self.shares) == 1 else math.inf
        left = epoch  # conversations of the epoch that do not wait yet
        waiting: deque[tuple[int, int]] = deque()  # (position, tokens), oldest first
        while True:
            left = left if waiting or left else epoch
            while len(waiting) < buffer and left:
                waiting.append(next(pieces)[:2])
                left -= 1
            chosen = [waiting.popleft()]
            room = self.context - (chosen[0][1] - 1)
            while room and self.packed and (fitting := [length for _, length in waiting if length - 1 <= room]):
                longest = max(fitting)
                at = next(i for i, (_, length) in enumerate(waiting) if length == longest)
                chosen.append(waiting[at])
                del waiting[at]
                room -= longest - 1
            for position, length in chosen:
                self._position.append(position)
                self._length.append(length)
                self.offered += length
            self._first.append(len(self._position))
            yield


def laid_out(conversations, pieces: Sequence[Sequence[tuple[int, int]]], T: int) -> Batch:
    """Rows `(B, T)` that hold, from left to right, the conversations at (position, tokens) in `conversations`."""
    B = len(pieces)
    ids, targets = np.full((B, T), conversations.pad, np.int64), np.full((B, T), IGNORE, np.int64)
    positions, document = np.zeros((B, T), np.int64), np.full((B, T), PADDING, np.int32)
    for row, inside in enumerate(pieces):
        column = 0
        for number, (position, length) in enumerate(inside):
            cells = slice(column, column + length - 1)
            ids[row, cells] = conversations.tokens[position : position + length - 1]
            after = conversations.tokens[position + 1 : position + length].astype(np.int64)
            learned = conversations.trained[position + 1 : position + length]
            targets[row, cells] = np.where(learned, after, IGNORE)
            positions[row, cells] = np.arange(length - 1)
            document[row, cells] = number
            column += length - 1
        positions[row, column:] = np.arange(T - column)
    return Batch(ids, targets, positions, document)


def held_out_rows(conversations, context: int) -> dict[str, tuple[float, list[list[tuple[int, int]]]]]:
    """For each source its share and the rows of its held-out conversations, as pieces for `laid_out`.

    Sources with nothing held out or no weight are left out.
    """
    total, rows_by_source = sum(conversations.weights), {}
    size, held = conversations.lengths(), np.asarray(conversations.held_out)
    for i, (name, weight) in enumerate(zip(conversations.names, conversations.weights, strict=True)):
        rows: list[list[tuple[int, int]]] = []
        room = 0
        for c in np.flatnonzero(held & (conversations.source == i)):
            if size[c] - 1 > room:
                rows.append([])
                room = context
            rows[-1].append((int(conversations.offsets[c]), int(size[c])))
            room -= int(size[c]) - 1
        if weight and rows:
            rows_by_source[name] = (weight / total, rows)
    return rows_by_source
