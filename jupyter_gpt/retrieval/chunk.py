"""Chunks: a document cut by `semchunk` into pieces of at most so many tokens of the embedder, with some overlap.

semchunk cuts at the largest gap there is: between parts, paragraphs, lines, sentences, then words. A chunk keeps the
page and the heading it begins under; the heading is embedded with it, for a paragraph rarely repeats what it is about.
A chunk never goes over to the next page (cell, row, line), so that it is cited with its own page.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from jupyter_gpt.retrieval.read import Document

TOKENS, OVERLAP = 200, 0.15  # of a chunk; the share of it that the next one repeats
CACHE = 4096  # texts whose count is remembered while cutting
SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|\n\n+|(?<=[。！？])")
BLOCK = 200_000  # characters that are cut at once
REACH = 10_000  # characters in which the repeated sentences are searched
HEADING = 120  # characters of a heading that are embedded: its end, the most specific part


@dataclass(frozen=True)
class Chunk:
    """A piece of a document: `start` is its first character there."""

    text: str
    start: int
    page: int | None
    heading: str

    @property
    def embedded(self) -> str:
        """What the embedder, and the keyword search, read."""
        return with_heading(self.text, self.heading)

    @property
    def hash(self) -> str:
        """Of what is embedded: two chunks of one hash share one vector."""
        return hashlib.sha256(self.embedded.encode()).hexdigest()


def with_heading(text: str, heading: str) -> str:
    """The text under its heading, unless it begins with it."""
    last = heading.rpartition(" > ")[2]
    if not heading or (last and last in text[: len(last) + 8]):
        heading = heading.rpartition(" > ")[0]
    return f"{heading[-HEADING:]}\n{text}" if heading else text


def chunker(
    count: Callable[[str], int], tokens: int = TOKENS, overlap: float = OVERLAP
) -> Callable[[Document], Iterator[Chunk]]:
    """A function that cuts documents. `count` says how many tokens a text has for the embedder.

    A chunk begins with whole sentences from the end of the one before, of at most `overlap` tokens (a share of `tokens`
    below 1), unless another heading begins with it.
    """
    import semchunk

    repeated = round(overlap * tokens) if overlap < 1 else round(overlap)
    # semchunk's own memory of counts is global: it would keep the model that counts for ever
    cut = semchunk.chunkerify(lru_cache(CACHE)(count), tokens - repeated, memoize=False)

    def chunks(document: Document) -> Iterator[Chunk]:
        text, before, floor = document.text, None, 0
        for first, last in pages(document):
            for start, end in cut(text[first:last], offsets=True)[1]:
                start, end = first + start, first + end
                place = document.place(start)
                if place != before:
                    before, floor = place, start
                start = (
                    sentence_before(text, floor, start, lambda piece: count(piece) <= repeated) if repeated else start
                )
                if text[start:end].strip():
                    yield Chunk(text[start:end], start, *place)

    return chunks


def pages(document: Document) -> Iterator[tuple[int, int]]:
    """Where each page begins and ends, in characters; the whole of a document that has none.

    A longer one than `BLOCK` is parted at a gap, so that no single cut takes long.
    """
    begins = [0, *(mark.start for before, mark in pairwise(document.marks) if mark.page != before.page)]
    text = document.text
    for begin, end in pairwise([*begins, len(text)]):
        while end - begin > BLOCK:
            gaps = (text.rfind(gap, begin + BLOCK // 2, begin + BLOCK) for gap in ("\n\n", "\n", " "))
            last = next((gap for gap in gaps if gap > 0), begin + BLOCK)
            yield begin, begin + len(text[begin:last].rstrip())
            begin = last
            while begin < end and text[begin].isspace():
                begin += 1
        yield begin, begin + len(text[begin:end].rstrip())


def sentence_before(text: str, floor: int, start: int, fits: Callable[[str], bool]) -> int:
    """The earliest beginning of a sentence between `floor` and `start` from which the text up to there still fits."""
    earliest, near = start, max(floor, start - REACH)
    begins = [near + gap.end() for gap in SENTENCE.finditer(text[near:start])]
    for begin in reversed([*([floor] if near == floor else []), *begins]):
        if begin < start and not fits(text[begin:start]):
            break
        earliest = min(earliest, begin)
    return earliest
