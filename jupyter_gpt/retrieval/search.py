"""Search: the nearest chunks of a question, by meaning, by words, or by both; in a new order; spread out.

keyword  BM25 alone
hybrid   reciprocal rank fusion of both lists, weight/(60 + rank) summed (Cormack, Clarke & Büttcher 2009)
rerank   a cross-encoder reads question and chunk together and gives the order
mmr      maximal marginal relevance (Carbonell & Goldstein 1998): what ranks high, and is unlike what was taken

They are steps, one after the other: candidates by one of the first two or by the embedding, then reranked, then spread
out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from jupyter_gpt.retrieval.build import keywords_of
from jupyter_gpt.retrieval.dense import Nearest
from jupyter_gpt.retrieval.filter import condition
from jupyter_gpt.retrieval.index import Index

RRF = 60  # the constant of reciprocal rank fusion
DEPTH = 50  # hits of each kind that are fused, and of all that are reranked or spread, at least
BALANCE = 0.7  # of mmr: the weight of nearness to the question against distance from what was taken


@dataclass(frozen=True, repr=False)
class Hit:
    """A chunk that was found. `score` is what it was ranked by: the cosine, the fused rank, or the reranker's score.

    cosine: to the question, always.  keyword: its BM25 score; None without --keyword or --hybrid, and where it has none
    of the words.
    sources: every document that holds this text, `source` the first.
    """

    text: str
    source: str
    page: int | None
    score: float
    heading: str
    cosine: float
    keyword: float | None
    row: int
    chunk: int
    sources: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<{self.score:.3f} {self.where}: {self.text[:60]!r}>"

    @property
    def where(self) -> str:
        """`handbook.pdf, page 3`."""
        return self.source if self.page is None else f"{self.source}, {part_of(self.source)} {self.page}"

    def as_dict(self) -> dict:
        return asdict(self) | {"sources": list(self.sources)}


def part_of(source: str) -> str:
    """What the numbered parts of a document are called."""
    suffix = source.rpartition(".")[2].lower()
    return {"ipynb": "cell", "csv": "row", "jsonl": "line"}.get(suffix, "page")


class Searcher:
    """An index loaded for searching, as it was at `stamp`."""

    def __init__(self, index: Index):
        self.index, self.stamp = index, index.stamp
        self.matrix, self.alive = index.matrix(), index.alive()
        self.nearest = Nearest(self.matrix, self.alive, index.folder / "hnsw.faiss")
        self.keywords = None

    def search(
        self,
        question: str,
        vector,
        k: int,
        *,
        keyword: bool = False,
        hybrid: float | None = None,
        mmr: bool = False,
        where: str | None = None,
        rerank: Callable[[str, Sequence[str]], Sequence[float]] | None = None,
    ) -> list[Hit]:
        """The best `k` chunks for `question`, whose unit vector is `vector` `(dimensions,)`; fewer where there are
        fewer.
        `hybrid` is the weight of the embedding's list, 0 to 1, against that of the words."""
        allowed = self.index.alive(*condition(where)) if where else None
        depth = max(DEPTH, 4 * k) if hybrid is not None or mmr or rerank else k
        scores, words = {}, {}
        if keyword or hybrid is not None:
            words = scores = dict(zip(*self.by_words(question, depth, allowed), strict=True))
        if not keyword:
            rows, cosines = self.nearest.search(vector, depth, allowed)
            scores = dict(zip(rows, cosines, strict=True))
            if hybrid is not None:
                scores = fused((rows, 2 * hybrid), (list(words), 2 * (1 - hybrid)))
        dense = not (keyword or hybrid is not None)
        cosine = scores if dense else self.cosines(vector, list(scores))
        if rerank and scores:
            texts = {place.row: place.text for place in self.index.places(list(scores))}
            scores = dict(zip(texts, map(float, rerank(question, list(texts.values()))), strict=True))
        order = sorted(scores, key=lambda row: (-scores[row], row))
        if mmr:
            ranked = [scores[row] for row in order]
            order = spread(self.matrix, order, ranked if dense and not rerank else scaled(ranked), k)
        places = self.index.places(order[:k])
        return [
            Hit(
                p.text,
                p.source,
                p.page,
                scores[p.row],
                p.heading,
                cosine[p.row],
                words.get(p.row),
                p.row,
                p.n,
                p.sources,
            )
            for p in places
        ]

    def by_words(self, question: str, k: int, allowed=None) -> tuple[list[int], list[float]]:
        """The best `k` by BM25 alone: rows and scores."""
        if self.keywords is None:
            self.keywords = keywords_of(self.index)
        return self.keywords.search(question, k, self.alive if allowed is None else allowed)

    def cosines(self, vector, rows: list[int]) -> dict[int, float]:
        found = self.matrix[rows] @ vector if rows else []
        return {row: float(value) for row, value in zip(rows, found, strict=True)}


def fused(*lists: tuple[Sequence[int], float]) -> dict[int, float]:
    """Rows to the sum of weight/(60 + rank) over the lists in which they stand, each with its weight, ranks counted
    from 1;
    of a list without weight, none."""
    scores: dict[int, float] = {}
    for rows, weight in lists:
        for rank, row in enumerate(rows if weight else (), start=1):
            scores[row] = scores.get(row, 0.0) + weight / (RRF + rank)
    return scores


def scaled(scores: Sequence[float]) -> list[float]:
    """Scores of any kind as relevance from 0, the least of them, to 1, which is what cosines can be set against."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]


def spread(matrix, rows: list[int], relevance: list[float], k: int) -> list[int]:
    """`k` of `rows` by maximal marginal relevance: BALANCE · relevance − (1 − BALANCE) · the cosine to the nearest
    taken.
    """
    import numpy as np

    vectors, gain = np.asarray(matrix[rows]), np.asarray(relevance)
    taken: list[int] = []
    close = np.full(len(rows), -np.inf)
    while len(taken) < min(k, len(rows)):
        value = BALANCE * gain - (1 - BALANCE) * np.where(np.isinf(close), 0.0, close)
        value[taken] = -np.inf
        best = int(np.argmax(value))
        taken.append(best)
        close = np.maximum(close, vectors @ vectors[best])
    return [rows[i] for i in taken]
