"""Search: the nearest chunks of a question, by meaning, by words too, in a new order, or spread out.

hybrid   reciprocal rank fusion of both lists, 1/(60 + rank) summed (Cormack, Clarke & Büttcher 2009)
rerank   a cross-encoder reads question and chunk together and gives the order
mmr      maximal marginal relevance (Carbonell & Goldstein 1998): near the question, far from what was taken
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

    cosine: to the question, always.  keyword: its BM25 score; None without --hybrid, and where it has none of the words.
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
        hybrid: bool = False,
        mmr: bool = False,
        where: str | None = None,
        rerank: Callable[[str, Sequence[str]], Sequence[float]] | None = None,
    ) -> list[Hit]:
        """The best `k` chunks for `question`, whose unit vector is `vector` `(dimensions,)`; fewer where there are fewer."""
        allowed = self.index.alive(*condition(where)) if where else None
        depth = max(DEPTH, 4 * k) if hybrid or mmr or rerank else k
        rows, cosines = self.nearest.search(vector, depth, allowed)
        scores, words = dict(zip(rows, cosines, strict=True)), {}
        if hybrid:
            found = self.by_words(question, depth, allowed)
            words = dict(zip(*found, strict=True))
            scores = fused(rows, found[0])
        cosine = self.cosines(vector, list(scores)) if hybrid else scores
        if rerank and scores:
            texts = {place.row: place.text for place in self.index.places(list(scores))}
            scores = dict(zip(texts, map(float, rerank(question, list(texts.values()))), strict=True))
        order = sorted(scores, key=lambda row: (-scores[row], row))
        if mmr:
            order = spread(self.matrix, order, [cosine[row] for row in order], k)
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


def fused(*lists: Sequence[int]) -> dict[int, float]:
    """Rows to the sum of 1/(60 + rank) over the lists in which they stand, ranks counted from 1."""
    scores: dict[int, float] = {}
    for rows in lists:
        for rank, row in enumerate(rows, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (RRF + rank)
    return scores


def spread(matrix, rows: list[int], relevance: list[float], k: int) -> list[int]:
    """`k` of `rows` by maximal marginal relevance: BALANCE · relevance − (1 − BALANCE) · the cosine to the nearest taken."""
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
