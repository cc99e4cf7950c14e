"""How varied a model's samples are: what mode collapse takes away while the reward still rises.

All measures take groups of texts, one group a prompt: samples of different prompts ought to differ anyway.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Groups = Sequence[Sequence[str]]


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every run of n words."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(groups: Groups, n: int) -> float | None:
    """Different n-grams over all n-grams, within each group, the mean of the groups (Li et al. 2016); None where there
    is
    no n-gram at all.
    """
    shares = []
    for group in groups:
        found = [gram for text in group for gram in ngrams(text.split(), n)]
        if found:
            shares.append(len(set(found)) / len(found))
    return sum(shares) / len(shares) if shares else None


def identical(groups: Groups) -> float | None:
    """Of all pairs of texts of one group, the share that are the same text; None where no group has two."""
    pairs = [a == b for group in groups for i, a in enumerate(group) for b in group[i + 1 :]]
    return sum(pairs) / len(pairs) if pairs else None


def bleu(words: Sequence[str], references: Sequence[Sequence[str]], most: int = 4) -> float:
    """BLEU of one text against several (Papineni et al. 2002), 0 to 1, over the n-grams the text is long enough for.

    Counts above n = 1 are smoothed by adding one (Lin and Och 2004), for a single text seldom has every order of match.
    """
    if not words or not references:
        return 0.0
    logs = []
    for n in range(1, min(most, len(words)) + 1):
        found = Counter(ngrams(words, n))
        best: Counter = Counter()
        for reference in references:
            best |= Counter(ngrams(reference, n))
        hits, total = (found & best).total(), found.total()
        more = n > 1
        if not hits and not more:
            return 0.0
        logs.append(math.log((hits + more) / (total + more)))
    closest = min((abs(len(r) - len(words)), len(r)) for r in references)[1]
    brevity = min(0.0, 1 - closest / len(words))
    return math.exp(brevity + sum(logs) / len(logs))


def self_bleu(groups: Groups) -> float | None:
    """Each text's BLEU against the others of its group, the mean of all (Zhu et al. 2018): 1 when all are alike; None
    where
    no group has two.
    """
    found = []
    for group in groups:
        split = [text.split() for text in group]
        found += [bleu(words, split[:i] + split[i + 1 :]) for i, words in enumerate(split) if len(split) > 1]
    return sum(found) / len(found) if found else None
