"""Metrics of classifiers, of annotators and of the diversity of samples; intervals of proportions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

Z95 = 1.959963984540054  # the 97.5th percentile of the normal distribution
RESAMPLES = 1000  # bootstrap resamples
Groups = Sequence[Sequence[str]]  # of texts, one per prompt: samples of different prompts differ anyway


def wilson(share: float, count: float, z: float = Z95) -> tuple[float, float]:
    """The 95% interval of a proportion in `count` independent trials (Wilson 1927); (0, 1) without trials. Unlike mean
    ± 1.96 standard errors it stays within 0 and 1, and holds for few trials and proportions near 0 or 1.
    """
    if not count:
        return 0.0, 1.0
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    total = 1 + z * z / count
    return max(0.0, (middle - half) / total), min(1.0, (middle + half) / total)


def ranks(order: Sequence[Sequence[int]]) -> list[float]:
    """The rank of each place, from groups of places with the best first: 1 is the best, a tie shares its mean."""
    result = [0.0] * sum(map(len, order))
    before = 0
    for group in order:
        for place in group:
            result[place] = before + (len(group) + 1) / 2
        before += len(group)
    return result


def kendalls_w(orders: Sequence[Sequence[Sequence[int]]]) -> float | None:
    """Kendall's coefficient of concordance W of m annotators' orders of the same n items, corrected for ties; None if
    everybody tied everything.

    With R_i the sum of the ranks of item i (tied items share their mean rank), S the sum of squared deviations of R_i
    from their mean, and T_j = Σ (t³ - t) over the tied groups of annotator j:

        W = 12 S / (m² (n³ - n) - m Σ T_j)

    (Kendall and Babington Smith, The problem of m rankings, 1939; ties as in Siegel, Nonparametric Statistics, 1956.)
    W is 1 when all agree; random orders have 1/m on average.

    Raises ValueError for fewer than two annotators or items, and for orders of different items.
    """
    m, n = len(orders), sum(map(len, orders[0])) if orders else 0
    if m < 2 or n < 2:
        raise ValueError(f"agreement needs at least two annotators and two items, not {m} and {n}")
    if any(sorted(place for group in order for place in group) != list(range(n)) for order in orders):
        raise ValueError("the orders are not of the same items")
    sums = [sum(column) for column in zip(*map(ranks, orders), strict=True)]
    mean = m * (n + 1) / 2
    spread = sum((total - mean) ** 2 for total in sums)
    ties = sum(len(group) ** 3 - len(group) for order in orders for group in order)
    most = m * m * (n**3 - n) - m * ties
    return 12 * spread / most if most > 0 else None


# classifiers


def confusion(true: numpy.ndarray, predicted: numpy.ndarray, labels: int) -> numpy.ndarray:
    """Counts `(labels, labels)`: true label (rows) × predicted label (columns), both given as indices `(n,)`."""
    import numpy

    return numpy.bincount(numpy.asarray(true) * labels + numpy.asarray(predicted), minlength=labels * labels).reshape(
        labels, labels
    )


def f1(matrix: numpy.ndarray) -> float:
    """Macro F1: the mean over labels of 2 TP / (2 TP + FP + FN); 0 for a label that is neither true nor predicted."""
    import numpy

    right, total = numpy.diag(matrix), matrix.sum(0) + matrix.sum(1)
    return float(numpy.mean(numpy.divide(2 * right, total, out=numpy.zeros(len(right)), where=total > 0)))


def metrics(true: numpy.ndarray, predicted: numpy.ndarray, labels: int) -> dict:
    """Accuracy with its Wilson interval, macro F1 with its bootstrap percentile interval (Efron 1979), both of 95%."""
    import numpy

    matrix = confusion(true, predicted, labels)
    count = int(matrix.sum())
    accuracy = float(numpy.trace(matrix) / count)
    low, high = wilson(accuracy, count)
    resampled = numpy.random.default_rng(0).multinomial(count, matrix.ravel() / count, RESAMPLES)
    scores = [f1(row.reshape(labels, labels)) for row in resampled]
    f1_low, f1_high = numpy.percentile(scores, [2.5, 97.5]).tolist()
    return {
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "f1": f1(matrix),
        "f1_low": f1_low,
        "f1_high": f1_high,
        "confusion": matrix.tolist(),
    }


# diversity: what mode collapse reduces while the reward still rises


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
