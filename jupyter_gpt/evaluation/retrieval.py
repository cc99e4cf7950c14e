"""How good retrieval is: recall@k, MRR and nDCG of questions whose answers are known to stand somewhere.

What a question is known by is one of: `quote`, a text (or several) that stands in the chunks that answer it, which is
the same for every size of chunk; `source`, a document, with `page` where it has one; `chunk`, (source, number of the
chunk).

    recall@k   the share of what is known that stands in the first k hits
    MRR        the mean of 1/rank of the first hit that answers; 0 where none does
    nDCG@k     Σ 1/log2(1 + rank) over the hits that answer, over what the best order of as many would have
               (Järvelin and Kekäläinen 2002, with gains of 0 and 1)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.intervals import wilson

KNOWN = ("quote", "source", "chunk")


@dataclass(frozen=True)
class Question:
    """A question and what answers it: `known` are tests, each True for a hit that has it. `answer` is None where not
    given.
    """

    text: str
    known: tuple[Callable[[object], bool], ...]
    answer: str | None = None


def questions_of(rows: Iterable[Mapping] | object) -> list[Question]:
    """Questions from rows with `question`, one of `quote`, `source`, `chunk`, and perhaps `answer`. Raises GPTError."""
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        rows = rows.to_dict("records")
    found = []
    for number, row in enumerate(rows if isinstance(rows, Iterable) and not isinstance(rows, str) else [rows], start=1):
        if not isinstance(row, Mapping) or not isinstance(row.get("question"), str):
            raise GPTError(
                f"row {number} has no question: rows with `question` and one of {', '.join(KNOWN)} are wanted"
            )
        how = next((key for key in KNOWN if row.get(key) is not None), None)
        if how is None:
            raise GPTError(f"row {number} does not say where its answer stands: give it one of {', '.join(KNOWN)}")
        values = row[how] if how == "quote" and not isinstance(row[how], str) else [row[how]]
        tests = tuple(test_of(how, value, row) for value in values)
        found.append(Question(row["question"], tests, row.get("answer")))
    if not found:
        raise GPTError("there are no questions to evaluate with")
    return found


def test_of(how: str, value, row: Mapping) -> Callable[[object], bool]:
    """A test of a hit: does it hold this quote, is it of this source and page, is it this chunk?"""
    if how == "quote":
        return lambda hit: flat(value) in flat(hit.text)
    if how == "chunk":
        return lambda hit: value[0] in hit.sources and hit.chunk == value[1]
    page = row.get("page")
    return lambda hit: value in hit.sources and (page is None or hit.page == page)


def flat(text: str) -> str:
    return " ".join(text.casefold().split())


def scores(questions: Sequence[Question], found: Sequence[Sequence], ks: Sequence[int]) -> dict[str, float]:
    """`recall@k`, `ndcg@k` for each k, and `mrr` over all that was found; means over the questions."""
    out: dict[str, float] = {}
    for k in ks:
        out[f"recall@{k}"] = mean(recall(q.known, hits[:k]) for q, hits in zip(questions, found, strict=True))
    answering = [[any(test(hit) for test in q.known) for hit in hits] for q, hits in zip(questions, found, strict=True)]
    out["mrr"] = mean(reciprocal_rank(gains) for gains in answering)
    for k in ks:
        out[f"ndcg@{k}"] = mean(ndcg(gains, k) for gains in answering)
    return out


def recommended(rows: Sequence[Mapping], questions: int) -> tuple[Mapping, str, tuple[float, float], list[Mapping]]:
    """The row that finds most at the smallest k, of equals the one with the highest MRR; the name of that figure, its
    95%
    interval (Wilson), and the other rows within it. Rows without figures of retrieval are left out."""
    figure = next(name for name in rows[0] if name.startswith("recall@"))
    ranked = sorted((row for row in rows if row[figure] == row[figure]), key=lambda row: (-row[figure], -row["mrr"]))
    best, *rest = ranked
    low, high = wilson(best[figure], questions)
    return best, figure, (low, high), [row for row in rest if row[figure] >= low]


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def recall(known: Sequence[Callable], hits: Sequence) -> float:
    """The share of `known` that some hit has."""
    return sum(any(test(hit) for hit in hits) for test in known) / len(known)


def reciprocal_rank(gains: Sequence[bool]) -> float:
    return next((1 / rank for rank, gain in enumerate(gains, start=1) if gain), 0.0)


def ndcg(gains: Sequence[bool], k: int) -> float:
    """Of the first k hits; the best order has all that answers among those found before the rest."""
    best = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, sum(gains)) + 1))
    return sum(gain / math.log2(1 + rank) for rank, gain in enumerate(gains[:k], start=1)) / best if best else 0.0


def right(answer: str, expected: str) -> bool:
    """Whether the expected answer stands in the answer, as whole words, upper and lower case and punctuation alike."""
    said, wanted = (re.findall(r"\w+", text.casefold()) for text in (answer, expected))
    return bool(wanted) and any(said[i : i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))
