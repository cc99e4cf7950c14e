"""Scores of an answer against the expected one, from 0 to 1, for answers that are sentences."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """The words without case, punctuation and articles, as SQuAD compares answers (Rajpurkar et al. 2016)."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def equal(answer: str, expected: str) -> float:
    """1.0 if both have the same words in the same order."""
    return float(words(answer) == words(expected))


def contains(answer: str, expected: str) -> float:
    """1.0 if the answer has the expected words side by side."""
    return float(f" {' '.join(words(expected))} " in f" {' '.join(words(answer))} ")


def token_f1(answer: str, expected: str) -> float:
    """The harmonic mean of precision and recall of words, in any order (SQuAD, Rajpurkar et al. 2016)."""
    found, wanted = words(answer), words(expected)
    return harmonic((Counter(found) & Counter(wanted)).total(), len(found), len(wanted))


def rouge_l(answer: str, expected: str) -> float:
    """ROUGE-L (Lin 2004): the harmonic mean of precision and recall of the longest common subsequence of words, with
    articles, without stemming."""
    found, wanted = (re.findall(r"[^\W_]+", text.lower()) for text in (answer, expected))
    lengths = [0] * (len(wanted) + 1)
    for word in found:
        diagonal = 0
        for at, other in enumerate(wanted, start=1):
            above, lengths[at] = lengths[at], diagonal + 1 if word == other else max(lengths[at], lengths[at - 1])
            diagonal = above
    return harmonic(lengths[-1], len(found), len(wanted))


def harmonic(common: int, found: int, wanted: int) -> float:
    return 2 * common / (found + wanted) if found + wanted else 1.0


SCORES: dict[str, tuple[str, Callable[[str, str], float]]] = {
    "contains": ("accuracy", contains),
    "f1": ("token F1", token_f1),
    "rouge": ("ROUGE-L", rouge_l),
}
