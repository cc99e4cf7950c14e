"""Conversations tokenized: ids, which of them are trained on, and what was cut or left out on the way.

folder/tokens.npy    (N,)   int32: all conversations end to end
folder/trained.npy   (N,)   bool: the tokens that are trained on (the assistant's, or all)
folder/offsets.npy   (C+1,) int64: where each conversation begins
folder/source.npy    (C,)   int32, an index into `names`
folder/held_out.npy  (C,)   bool: for validation only
folder/conversations.json   counts of each source; written last: where it is, all is whole
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Counts:
    """One source in the table: how its conversations were read and what became of them.

    form: how they are written (`messages`, `alpaca`, …). conversations: used, held-out ones included. cut: of these,
    shortened to the context. refused: left out, for being over-long or having nothing to learn. tokens, trained: of the
    conversations used for training. held_out: conversations kept for validation. notes: one line each, for the reader.
    """

    source: str
    form: str
    weight: float
    share: float
    conversations: int
    cut: int
    refused: int
    tokens: int
    trained: int
    held_out: int
    endless: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Conversations:
    """Tokenized conversations of several sources; none is longer than `context` + 1 tokens, none without a trained one."""

    tokens: np.ndarray  # (N,) int32
    trained: np.ndarray  # (N,) bool
    offsets: np.ndarray  # (C+1,) int64
    source: np.ndarray  # (C,) index into names
    held_out: np.ndarray  # (C,) bool
    names: list[str]
    weights: list[float]
    pad: int
    counts: list[Counts] = field(default_factory=list)
    first: list[dict] = field(default_factory=list)  # the first conversations, for the eye: see views/conversations.py
