"""`gpt.evaluate_index`: retrieval metrics by index (its embedder and chunk size), search and k; and how a model answers
without and with the index.

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
from typing import Any, ClassVar

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.metrics import wilson
from jupyter_gpt.options import Count, option
from jupyter_gpt.report.parts import Paragraph, Table, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.stages.prompt_options import PromptOptions

WAYS = {"dense": {}, "--keyword": {"keyword": True}} | {f"--hybrid {w}": {"hybrid": w} for w in (0.25, 0.5, 0.75)}
KS = [1, 5, 10]
OWN = {"questions", "indexes", "ks", "models", "k", "progress"}  # all other options are those of `gpt.prompt`
EVIDENCE = ("quote", "source", "chunk")


@dataclass(frozen=True)
class Question:
    """A question, tests of a hit for each piece of its evidence, and perhaps the expected answer."""

    text: str
    evidence: tuple[Callable[[Any], bool], ...]
    answer: str | None = None


class EvaluateIndex(PromptOptions):
    """retrieval metrics of indexes on questions with evidence: recall, MRR, nDCG"""

    magic: ClassVar[str] = "gpt.evaluate_index"

    model: Any = option(None, "the models take its place", only="none")
    questions: Any = option(..., "a table of questions, with a `quote`, or `source` and `page`", positional=True)
    indexes: list[str] = option(..., "names of the indexes", positional=True)
    ks: list[Count] | None = option(None, "numbers of hits that recall is measured at")
    models: list[str] = option((), "models to ask, without and with the index")
    k: Count = option(4, "number of chunks in the prompt")
    progress: Callable | None = option(None, "called with (what, done, total)", only="python")


def evaluate_index(session, options: EvaluateIndex):
    """A DataFrame with a row for each index and kind of search, named as the options of `%gpt search`, with `recall@k`,
    `mrr` and `ndcg@k`; `.attrs["questions"]` is their number.

    With `models`, also each model's share of right answers `closed` (without the index) and `open` (`gpt.rag` with `k`
    chunks); questions then need an `answer`. Raises GPTError for questions without evidence.
    """
    import pandas

    asked, ks = questions_of(options.questions), options.ks or KS
    if options.models and any(question.answer is None for question in asked):
        raise GPTError("to evaluate a model every question needs an `answer`")
    tell = options.progress or (lambda what, done, total: None)
    rows, texts = [], [question.text for question in asked]
    common = {"temperature": 0.0, "max_tokens": 64}
    common |= {name: value for name, value in options.chosen.items() if name not in OWN}
    for name in options.indexes:
        index = session.indexes[name]
        about = {"index": name, "embedder": index.about["embedder"], "chunk": index.about["chunk_tokens"]}
        vectors, search = index.vectors(texts), index.searcher.search
        for way, how in WAYS.items():
            tell(f"{name}, {way}", 0, 1)
            found = [search(text, vector, max(ks), **how) for text, vector in zip(texts, vectors, strict=True)]
            rows.append({**about, "search": way, **scores(asked, found, ks)})
        for model in options.models:
            closed = [done.text for done in session.prompts(texts, model=model, **common)]
            open_ = []
            for number, text in enumerate(texts):
                tell(f"{name}, {model}", number, len(texts))
                open_.append(session.rag(text, name, model=model, k=options.k, hybrid=True, **common).text)
            share = [
                mean(right(a, q.answer or "") for a, q in zip(said, asked, strict=True)) for said in (closed, open_)
            ]
            rows.append({**about, "search": f"{model}, k {options.k}", "closed": share[0], "open": share[1]})
    table = pandas.DataFrame(rows)
    table.attrs["questions"] = len(asked)
    return table


def questions_of(rows: Any) -> list[Question]:
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


def test_of(how: str, value, row: Mapping) -> Callable[[Any], bool]:
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


def retrieval_report(table) -> Report:
    """A report of the DataFrame of `gpt.evaluate_index`; figures may differ on another machine."""
    words = ["index", "embedder", "chunk", "search"]
    numbers = [name for name in table.columns if name not in words]
    records = table.to_dict("records")
    rows = [
        [
            *(str(row[name]) for name in words),
            *("" if row[name] != row[name] else Varies(row[name], 3) for name in numbers),
        ]
        for row in records
    ]
    lines = [Paragraph(Varies(line)) for line in words_on(records, table.attrs["questions"])]
    return Report(
        "",
        [Table((*words, *numbers), rows, "llrl" + "r" * len(numbers)), *lines],
        {"view": "retrieval", "indexes": list(dict.fromkeys(table["index"]))},
        {"rows": records},
    )


def words_on(rows: list[dict], questions: int) -> list[str]:
    """Which index and which search finds most, how sure that is, and how it is asked for."""
    best, figure, (low, high), within = recommended(rows, questions)
    flags = "" if best["search"] == "dense" else f" {best['search']}"
    best_line = (
        f"best: index {best['index']}, {best['search']}: {figure} {best[figure]:.3f} ({low:.3f} to {high:.3f}, "
        f"{questions:,} questions); %%rag --index {best['index']}{flags}"
    )
    if not within:
        return [best_line, "nothing else is within its interval"]
    others = ", ".join(f"{row['index']} {row['search']} {row[figure]:.3f}" for row in within[:6])
    return [best_line, f"within its interval: {others}{' …' if len(within) > 6 else ''}"]
