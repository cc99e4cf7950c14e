"""Where texts differ, word by word: the stretches that one of them has and no other.

Each pair of texts is compared by `difflib`; a word counts as shared when some other text has it at the same
place of its course. White space is not compared.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import combinations

WORD = re.compile(r"\w+|[^\w\s]")
LITTLE, RUN = 0.4, 3  # share of common words; words that make a run
MUCH = 0.6  # share of a text's characters
Stretch = tuple[str, bool]  # a piece of a text, and whether it differs from the others


def differences(texts: Sequence[str]) -> list[list[Stretch]]:
    """Each text as stretches that join to it again."""
    found = [list(WORD.finditer(text)) for text in texts]
    words = [[match[0] for match in each] for each in found]
    kept: list[set[int]] = [set() for _ in texts]
    for one, other in combinations(range(len(texts)), 2):
        pairs = shared(words[one], words[other])
        kept[one] |= pairs.keys()
        kept[other] |= set(pairs.values())
    return [stretches(*each) for each in zip(texts, found, kept, strict=True)]


def mostly(text: Sequence[Stretch]) -> bool:
    """Whether so much of a text differs that marking it in full strength would only tire the eyes."""
    differing = sum(len(piece) for piece, differs in text if differs)
    return differing > MUCH * sum(len(piece) for piece, _ in text)


def shared(one: list[str], other: list[str]) -> dict[int, int]:
    """The words of `one` that stand in `other` too, in the same order: place by place.

    Between texts that have little in common a stray `the` or comma means nothing: there only longer runs
    count.
    """
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    blocks = matcher.get_matching_blocks()
    if matcher.ratio() < LITTLE:
        blocks = [block for block in blocks if block.size >= RUN]
    return {b.a + i: b.b + i for b in blocks for i in range(b.size)}


def stretches(text: str, words: list[re.Match], kept: set[int]) -> list[Stretch]:
    """The text cut where differing words begin and end; the space between two of them goes with them."""
    out: list[Stretch] = []
    at = 0
    for place, word in enumerate(words):
        differs = place not in kept
        joined = bool(out) and out[-1][1] and differs
        between = text[at : word.start()]
        if joined:
            out[-1] = (out[-1][0] + between + word[0], True)
        else:
            out += [(between, False)] * bool(between) + [(word[0], differs)]
        at = word.end()
    out += [(text[at:], False)] * (at < len(text))
    return merged(out)


def merged(pieces: list[Stretch]) -> list[Stretch]:
    """Neighbours of one kind joined."""
    out: list[Stretch] = []
    for text, differs in pieces:
        if out and out[-1][1] == differs:
            out[-1] = (out[-1][0] + text, differs)
        else:
            out.append((text, differs))
    return out
