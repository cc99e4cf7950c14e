"""Retrieval metrics: recall@k, MRR and nDCG of questions with known evidence.

The evidence is one of: `quote`, a text (or several) of the relevant chunks, which does not depend on the chunk size;
`source`, a document, perhaps with `page`; `chunk`, (source, number of the chunk).

    recall@k   the share of the evidence in the first k hits
    MRR        the mean of 1/rank of the first relevant hit; 0 without one
    nDCG@k     Σ 1/log2(1 + rank) over the relevant hits, divided by that of the ideal order
               (Järvelin and Kekäläinen 2002, with gains of 0 and 1)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.intervals import wilson

EVIDENCE = ("quote", "source", "chunk")


@dataclass(frozen=True)
class Question:
    """A question, tests of a hit for each piece of its evidence, and perhaps the expected answer."""

    text: str
    evidence: tuple[Callable[[object], bool], ...]
    answer: str | None = None


def questions_of(rows: Iterable[Mapping] | object) -> list[Question]:
    """Questions from rows with `question`, one of `quote`, `source`, `chunk`, and perhaps `answer`. Raises GPTError."""
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        rows = rows.to_dict("records")
    found = []
    for number, row in enumerate(rows if isinstance(rows, Iterable) and not isinstance(rows, str) else [rows], start=1):
        if not isinstance(row, Mapping) or not isinstance(row.get("question"), str):
            raise GPTError(f"row {number} has no question: rows need `question` and one of {', '.join(EVIDENCE)}")
        how = next((key for key in EVIDENCE if row.get(key) is not None), None)
        if how is None:
            raise GPTError(f"row {number} has no evidence: give it one of {', '.join(EVIDENCE)}")
        values = row[how] if how == "quote" and not isinstance(row[how], str) else [row[how]]
        tests = tuple(test_of(how, value, row) for value in values)
        found.append(Question(row["question"], tests, row.get("answer")))
    if not found:
        raise GPTError("there are no questions to evaluate with")
    return found


def test_of(how: str, value, row: Mapping) -> Callable[[object], bool]:
    """Whether a hit contains this quote, is of this source and page, or is this chunk."""
    if how == "quote":
        return lambda hit: flat(value) in flat(hit.text)
    if how == "chunk":
        return lambda hit: value[0] in hit.sources and hit.chunk == value[1]
    page = row.get("page")
    return lambda hit: value in hit.sources and (page is None or hit.page == page)


def flat(text: str) -> str:
    return " ".join(text.casefold().split())


def scores(questions: Sequence[Question], hits_of: Sequence[Sequence], ks: Sequence[int]) -> dict[str, float]:
    """`recall@k` and `ndcg@k` for each k, and `mrr` over all hits; means over the questions."""
    out: dict[str, float] = {}
    for k in ks:
        out[f"recall@{k}"] = mean(recall(q.evidence, hits[:k]) for q, hits in zip(questions, hits_of, strict=True))
    relevant = [
        [any(test(hit) for test in q.evidence) for hit in hits] for q, hits in zip(questions, hits_of, strict=True)
    ]
    out["mrr"] = mean(reciprocal_rank(gains) for gains in relevant)
    for k in ks:
        out[f"ndcg@{k}"] = mean(ndcg(gains, k) for gains in relevant)
    return out


def recommended(rows: Sequence[Mapping], questions: int) -> tuple[Mapping, str, tuple[float, float], list[Mapping]]:
    """The row with the highest recall at the smallest k (of equals with the highest MRR), the name of that metric, its
    95% interval (Wilson), and the other rows within it. Rows without retrieval metrics are left out.
    """
    figure = next(name for name in rows[0] if name.startswith("recall@"))
    ranked = sorted((row for row in rows if row[figure] == row[figure]), key=lambda row: (-row[figure], -row["mrr"]))
    best, *rest = ranked
    low, high = wilson(best[figure], questions)
    return best, figure, (low, high), [row for row in rest if row[figure] >= low]


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def recall(evidence: Sequence[Callable], hits: Sequence) -> float:
    """The share of `evidence` in the hits."""
    return sum(any(test(hit) for hit in hits) for test in evidence) / len(evidence)


def reciprocal_rank(gains: Sequence[bool]) -> float:
    return next((1 / rank for rank, gain in enumerate(gains, start=1) if gain), 0.0)


def ndcg(gains: Sequence[bool], k: int) -> float:
    """Over the first k hits; the ideal order has all relevant hits first."""
    best = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, sum(gains)) + 1))
    return sum(gain / math.log2(1 + rank) for rank, gain in enumerate(gains[:k], start=1)) / best if best else 0.0


def right(answer: str, expected: str) -> bool:
    """Whether the answer contains the expected one as whole words, ignoring case and punctuation."""
    said, wanted = (re.findall(r"\w+", text.casefold()) for text in (answer, expected))
    return bool(wanted) and any(said[i : i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))
