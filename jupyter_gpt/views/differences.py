"""Where texts differ, word by word: the stretches that not all of them share.

With two texts it is `difflib`'s comparison. With more, each is set beside the first, and what counts as shared is what
all of them have. White space is not compared.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

WORD = re.compile(r"\w+|[^\w\s]")
LITTLE, RUN = 0.4, 3  # share of common words; words that make a run
Stretch = tuple[str, bool]  # a piece of a text, and whether it differs from the others


def differences(texts: Sequence[str]) -> list[list[Stretch]]:
    """Each text as stretches that join to it again."""
    words = [list(WORD.finditer(text)) for text in texts]
    first = [match[0] for match in words[0]]
    pairs = [shared(first, [match[0] for match in other]) for other in words[1:]]
    common = set(range(len(first))).intersection(*(set(pair) for pair in pairs))
    kept = [common, *({pair[i] for i in common} for pair in pairs)]
    return [stretches(*each) for each in zip(texts, words, kept, strict=True)]


def shared(one: list[str], other: list[str]) -> dict[int, int]:
    """The words of `one` that stand in `other` too, in the same order: place by place.

    Between texts that have little in common a stray `the` or comma means nothing: there only longer runs count.
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
