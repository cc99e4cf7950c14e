"""Accuracy and cost of models with techniques, and which to use.

"First the best possible performance, then cost": the recommendation is the setting with the highest accuracy, and the
cheapest one whose accuracy lies within that one's 95% interval (Wilson).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jupyter_gpt.evaluation.intervals import wilson


@dataclass(frozen=True)
class Setting:
    """One model with one technique: sums over `count` questions. `cost` in dollars, None without a price; `flops` about
    2 x parameters x tokens, None for an endpoint; `silent`: replies without an answer, `cut`: those of them that
    stopped at --max-tokens.
    """

    model: str
    technique: str
    count: int
    right: int
    silent: int
    cut: int
    tokens_in: int
    tokens_out: int
    seconds: float
    cost: float | None
    flops: float | None

    @property
    def accuracy(self) -> float:
        return self.right / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy."""
        return wilson(self.accuracy, self.count)

    @property
    def name(self) -> str:
        return f"{self.model} {self.technique}"


def summarize(model: str, technique: str, rows: Sequence[Mapping], parameters: int | None) -> Setting:
    """The setting of these results; each row has `right`, `answer` (or None), `cut`, `tokens_in`, `tokens_out`,
    `seconds`, `cost`.
    """
    tokens = sum(row["tokens_in"] + row["tokens_out"] for row in rows)
    costs = [row["cost"] for row in rows]
    return Setting(
        model,
        technique,
        len(rows),
        sum(row["right"] for row in rows),
        sum(not row["answer"] for row in rows),
        sum(not row["answer"] and row["cut"] for row in rows),
        sum(row["tokens_in"] for row in rows),
        sum(row["tokens_out"] for row in rows),
        sum(row["seconds"] for row in rows),
        None if None in costs or not costs else sum(costs),
        2.0 * parameters * tokens if parameters else None,
    )


def price(settings: Sequence[Setting]) -> tuple[str, list[float]]:
    """The unit of cost, and the cost per question of each setting: dollars if all have a price, FLOPs if all are models
    of this kernel (the same on every machine), else tokens.
    """
    if all(s.cost is not None for s in settings):
        return "dollars a question", [s.cost / max(1, s.count) for s in settings]
    if all(s.flops is not None for s in settings):
        return "GFLOP a question", [s.flops / 1e9 / max(1, s.count) for s in settings]
    return "tokens a question", [(s.tokens_in + s.tokens_out) / max(1, s.count) for s in settings]


def front(settings: Sequence[Setting]) -> list[Setting]:
    """The Pareto front of accuracy and cost, cheapest first."""
    costs = price(settings)[1]
    ordered = sorted(range(len(settings)), key=lambda i: (costs[i], -settings[i].accuracy))
    result: list[Setting] = []
    for i in ordered:
        if not result or settings[i].accuracy > result[-1].accuracy:
            result.append(settings[i])
    return result


def recommended(settings: Sequence[Setting]) -> tuple[Setting, Setting]:
    """The most accurate setting (of equals the cheapest), and the cheapest within its interval."""
    costs = dict(zip(settings, price(settings)[1], strict=True))
    best = max(settings, key=lambda s: (s.accuracy, -costs[s]))
    low = min(best.accuracy, best.interval[0])  # rounding at 0%
    return best, min((s for s in settings if s.accuracy >= low), key=lambda s: (costs[s], -s.accuracy))
