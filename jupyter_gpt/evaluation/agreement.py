"""Agreement of annotators: Kendall's coefficient of concordance W, corrected for ties.

With m annotators and n items, R_i the sum of the ranks of item i (tied items share their mean rank), S the sum of
squared deviations of R_i from their mean, and T_j = Σ (t³ - t) over the tied groups of annotator j:

    W = 12 S / (m² (n³ - n) - m Σ T_j)

Kendall and Babington Smith, The problem of m rankings, 1939; ties as in Siegel, Nonparametric Statistics, 1956. W is 1
when all agree; random orders have 1/m on average.
"""

from __future__ import annotations

from collections.abc import Sequence


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
    """W of m annotators' orders of the same n items; None where everybody tied everything.

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
