"""Diversity of a model's samples: what mode collapse reduces while the reward still rises.

All metrics take groups of texts, one per prompt: samples of different prompts differ anyway.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Groups = Sequence[Sequence[str]]


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All sequences of n words."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(groups: Groups, n: int) -> float | None:
    """Distinct-n: different n-grams over all n-grams, the mean of the groups (Li et al. 2016); None without n-grams."""
    shares = []
    for group in groups:
        grams = [gram for text in group for gram in ngrams(text.split(), n)]
        if grams:
            shares.append(len(set(grams)) / len(grams))
    return sum(shares) / len(shares) if shares else None


def identical(groups: Groups) -> float | None:
    """The share of identical texts among the pairs of each group; None without pairs."""
    pairs = [a == b for group in groups for i, a in enumerate(group) for b in group[i + 1 :]]
    return sum(pairs) / len(pairs) if pairs else None


def bleu(words: Sequence[str], references: Sequence[Sequence[str]], most: int = 4) -> float:
    """BLEU of one text against several (Papineni et al. 2002), 0 to 1, over the n-grams the text is long enough for.

    Counts above n = 1 are smoothed by adding one (Lin and Och 2004): a single text seldom matches at every order.
    """
    if not words or not references:
        return 0.0
    logs = []
    for n in range(1, min(most, len(words)) + 1):
        counts = Counter(ngrams(words, n))
        best: Counter = Counter()
        for reference in references:
            best |= Counter(ngrams(reference, n))
        hits, total, smoothing = (counts & best).total(), counts.total(), int(n > 1)
        if not hits and not smoothing:
            return 0.0
        logs.append(math.log((hits + smoothing) / (total + smoothing)))
    closest = min((abs(len(r) - len(words)), len(r)) for r in references)[1]
    brevity = min(0.0, 1 - closest / len(words))
    return math.exp(brevity + sum(logs) / len(logs))


def self_bleu(groups: Groups) -> float | None:
    """The mean BLEU of each text against the others of its group (Zhu et al. 2018): 1 if all are alike; None without
    pairs.
    """
    scores = []
    for group in groups:
        split = [text.split() for text in group]
        scores += [bleu(words, split[:i] + split[i + 1 :]) for i, words in enumerate(split) if len(split) > 1]
    return sum(scores) / len(scores) if scores else None
