"""Where texts differ, word by word. Each two are compared by `difflib`; white space is not compared."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from itertools import combinations, groupby

WORD = re.compile(r"\w+|[^\w\s]")
LITTLE, RUN = 0.4, 3  # texts with a smaller share of common words have only longer runs of words in common
MUCH = 0.6  # share of a text's characters
Piece = tuple[str, bool]  # a piece of a text, and whether no other text has it there


def differences(texts: Sequence[str]) -> list[list[Piece]]:
    """Each text as pieces that join to it again."""
    words = [list(WORD.finditer(text)) for text in texts]
    shared: list[set[int]] = [set() for _ in texts]
    for one, other in combinations(range(len(texts)), 2):
        for a, b in matches(*([match[0] for match in words[i]] for i in (one, other))):
            shared[one].add(a)
            shared[other].add(b)
    return [pieces(*each) for each in zip(texts, words, shared, strict=True)]


def mostly(text: Sequence[Piece]) -> bool:
    """Whether so much of a text differs that marking it in full strength would only tire the eyes."""
    return sum(len(piece) for piece, differs in text if differs) > MUCH * sum(len(piece) for piece, _ in text)


def matches(one: list[str], other: list[str]) -> Iterator[tuple[int, int]]:
    """Places of the words that both have in the same order. In texts with little in common a stray `the` or comma
    means nothing.
    """
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    least = RUN if matcher.ratio() < LITTLE else 1
    for a, b, size in matcher.get_matching_blocks():
        if size >= least:
            yield from zip(range(a, a + size), range(b, b + size), strict=True)


def pieces(text: str, words: list[re.Match], shared: set[int]) -> list[Piece]:
    """The text cut where differing words begin and end; the space between two of them goes with them."""
    parts: list[Piece] = []
    end, before = 0, False
    for place, word in enumerate(words):
        differs = place not in shared
        parts += [(text[end : word.start()], before and differs), (word[0], differs)]
        end, before = word.end(), differs
    parts.append((text[end:], False))
    runs = groupby((piece for piece in parts if piece[0]), key=lambda piece: piece[1])
    return [("".join(piece for piece, _ in run), differs) for differs, run in runs]
