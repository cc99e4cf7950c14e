"""The split: what of a source is trained on, and what is held out for validation.

- Of many documents one in twenty is held out, chosen by a hash of its content: the choice outlives another
  seed, another order and a source that grows, and copies of a document fall on the same side.
- Of fewer than 20 documents the last tenth of each is held out: of tinyshakespeare what nanoGPT holds out. What is
  trained on then has no end, and what is held out no beginning. Of short ones among them, which may fit in a row,
  whole ones are held out, for a model could not learn where they end.
- A document may be huge: it travels in pieces, cut where no token is ever cut.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from jupyter_gpt.data.documents import Writer
from jupyter_gpt.data.files import utf8
from jupyter_gpt.data.long_text import LongText, parts
from jupyter_gpt.errors import GPTError

MANY = 20  # documents: from here on whole documents are held out, below it the end of each
HELD_OUT = {True: 0.05, False: 0.1}  # the fraction held out, by whether the documents are many
SHORT = 8  # characters of a document for each token of a row, at most, for it to be held out whole or not at all
PIECE = 10_000  # characters, about: a long document stops close to what is needed
# Where a text may be cut without changing its tokens: a pretoken of the BPE always ends there.
SEAM = re.compile(r"(?<=\n)(?=\S)|(?<=[^\W_])(?= [^\W_])")


class Portion(NamedTuple):
    """A document, or the part of one, that is trained on or held out as a whole."""

    text: str | LongText
    held: bool
    place: float  # [0, 1), from the content of the document
    begins: bool = True  # where the document does
    ends: bool = True


class Piece(NamedTuple):
    """A stretch of a portion, short enough to encode in one go."""

    text: str
    opens: bool  # it is the portion's first
    closes: bool  # it is the portion's last
    portion: Portion


@dataclass
class Source:
    """One source of a mixture on its way to disk, and what has been counted of it."""

    index: int
    name: str
    weight: float
    share: float
    read: Callable[[], Iterator[str | LongText]]
    need: int  # tokens to train on
    most_held: int  # tokens
    context: int  # tokens of a row
    many: bool = True
    fraction: float = 0.0  # held out
    tokens: int = 0
    held_tokens: int = 0
    bytes: int = 0  # of the text behind both
    documents: int = 0  # begun on disk, of both
    held: list[tuple[float, int]] = field(default_factory=list)  # (place, document) held out
    lowest: tuple[float, int] = (1.0, -1)  # (place, document), of all
    short: dict[float, bool] = field(default_factory=dict)  # of few, the places of short ones: whether held out

    def texts(self) -> Iterator[str | LongText]:
        """Its documents that have something in them."""
        return (text for text in self.read() if text and not text.isspace())

    def look(self, held_out: float | None) -> None:
        """Finds out whether its documents are many, so what fraction to hold out. GPTError for none."""
        short: list[float | None] = []
        for text in islice(self.texts(), MANY):
            short.append(place(text, self.name) if len(text) <= SHORT * self.context else None)
        if not short:
            raise GPTError(f"{self.name} has no document with any text in it")
        self.many = len(short) == MANY
        self.fraction = HELD_OUT[self.many] if held_out is None else held_out
        if not self.many:
            places = sorted({where for where in short if where is not None})
            least = self.fraction > 0 and None not in short and len(places) > 1
            count = max(least, round(self.fraction * len(places)))
            self.short = {where: n < count for n, where in enumerate(places)}

    def portions(self, text: str | LongText) -> list[Portion]:
        """What of a document is trained on and what is held out."""
        where = place(text, self.name)
        if self.many or where in self.short:
            return [Portion(text, self.short.get(where, where < self.fraction), where)]
        end = int((1 - self.fraction) * len(text))
        parts = (
            Portion(text[:end], False, where, ends=end == len(text)),
            Portion(text[end:], True, where, begins=end == 0),
        )
        return [part for part in parts if part.text]

    def pieces(self) -> Iterator[Piece]:
        """All its pieces in order; once there is enough, the rest is left out."""
        for text in self.texts():
            if self.enough:
                return
            for portion in self.portions(text):
                for piece in pieces(portion):
                    if self.full(portion):
                        break
                    yield piece

    @property
    def enough(self) -> bool:
        """Whether there is enough to train on. Of many documents there are two at least: one may be held out."""
        return self.tokens >= self.need and (self.documents > 1 or not self.many)

    def full(self, portion: Portion) -> bool:
        """Whether there is enough already of what the portion is for."""
        if portion.held:
            return not self.many and self.held_tokens >= self.most_held
        return self.enough

    def write(self, piece: Piece, ids: list[int], writer: Writer) -> None:
        """Puts an encoded piece on disk, unless there is enough."""
        portion = piece.portion
        held, where = portion.held, portion.place
        if self.full(portion):
            return
        if piece.opens:
            document = writer.begin(self.index, held, portion.begins)
            self.documents += 1
            self.lowest = min(self.lowest, (where, document))
            if held:
                self.held.append((where, document))
        writer.extend(ids)
        if piece.closes and portion.ends:
            writer.end()
        self.bytes += len(piece.text.encode())
        count = len(ids) + (piece.opens and portion.begins)
        if held:
            self.held_tokens += count
        else:
            self.tokens += count

    def settle(self, writer: Writer) -> None:
        """Of many documents, holds out no more than allowed and at least one: those lowest in place."""
        if not self.many:
            return
        keep: list[int] = []
        held = 0
        for _, document in sorted(self.held):
            if keep and held + writer.length(document) > self.most_held:
                break
            keep.append(document)
            held += writer.length(document)
        if not keep and self.fraction > 0:
            keep = [self.lowest[1]]
            held = writer.length(keep[0])
        for _, document in self.held:
            writer.held_out[document] = 0
        for document in keep:
            writer.held_out[document] = 1
        self.tokens, self.held_tokens = self.tokens + self.held_tokens - held, held

    def counts(self) -> dict:
        """What was counted, for documents.json."""
        return {
            "name": self.name,
            "weight": self.weight,
            "tokens": self.tokens,
            "held_out_tokens": self.held_tokens,
            "bytes": self.bytes,
            "exhausted": self.tokens < self.need,
        }


def pieces(portion: Portion, most: int | None = None) -> Iterator[Piece]:
    """A portion (its first `most` characters) cut at seams into stretches of about PIECE characters."""
    total = len(portion.text)
    limit, rest, opens = total if most is None else min(most, total), "", True
    for part in parts(portion.text[:limit]):
        rest, begin = rest + part, 0
        while len(rest) - begin > PIECE and (seam := SEAM.search(rest, begin + PIECE)):
            yield Piece(rest[begin : seam.start()], opens, False, portion)
            begin, opens = seam.start(), False
        rest = rest[begin:]
    if rest:
        yield Piece(rest, opens, limit == total, portion)


def place(text: str | LongText, name: str) -> float:
    """A document's place in [0, 1), from its content alone."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts(text):
        digest.update(utf8(part, f"a document of {name}"))
    return int.from_bytes(digest.digest()) / 2**64
