"""Search: the chunks nearest to a question by embedding, by BM25 or by both; filtered, reranked, diversified.

keyword  BM25 alone
hybrid   reciprocal rank fusion of both lists, weight/(60 + rank) summed (Cormack, Clarke & Büttcher 2009)
rerank   a cross-encoder reads question and chunk together and gives the order
mmr      maximal marginal relevance (Carbonell & Goldstein 1998): high rank, and low similarity to the chunks selected
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.retrieval.build import keywords_of
from jupyter_gpt.retrieval.dense import Nearest
from jupyter_gpt.retrieval.index import Index

RRF = 60  # the constant of reciprocal rank fusion
DEPTH = 50  # candidates that are fused, reranked or diversified, at least
BALANCE = 0.7  # the weight of relevance against diversity in MMR
COLUMNS = {"source": "d.source", "page": "c.page", "heading": "c.heading", "text": "c.text", "chunk": "c.n"}
SIGNS = {ast.Eq: "=", ast.NotEq: "<>", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
FILTERS = "comparisons of source, page, heading, text or chunk, such as \"page > 3 and source == 'a.pdf'\""


@dataclass(frozen=True, repr=False)
class Hit:
    """A search result. `score` is what it was ranked by: the cosine, the fused rank, or the reranker's score.

    cosine: to the question, always.  keyword: its BM25 score; None without --keyword or --hybrid, and where no word of
    the question occurs.  sources: every document that contains this text, `source` the first.
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
        """At most `k` chunks for `question`, whose unit vector is `vector` `(dimensions,)`, best first.

        hybrid: the weight of the embedding, 0 to 1, against BM25. where: a filter. rerank: a cross-encoder's scores.
        """
        allowed = self.index.alive(*sql_condition(where)) if where else None
        depth = max(DEPTH, 4 * k) if hybrid is not None or mmr or rerank else k
        scores, words = {}, {}
        if keyword or hybrid is not None:
            words = scores = dict(zip(*self.by_words(question, depth, allowed), strict=True))
        if not keyword:
            rows, cosines = self.nearest.search(vector, depth, allowed)
            scores = dict(zip(rows, cosines, strict=True))
            if hybrid is not None:
                scores = fuse((rows, 2 * hybrid), (list(words), 2 * (1 - hybrid)))
        dense = not (keyword or hybrid is not None)
        cosine = scores if dense else self.cosines(vector, list(scores))
        if rerank and scores:
            texts = {place.row: place.text for place in self.index.places(list(scores))}
            scores = dict(zip(texts, map(float, rerank(question, list(texts.values()))), strict=True))
        order = sorted(scores, key=lambda row: (-scores[row], row))
        if mmr:
            ranked = [scores[row] for row in order]
            order = select_mmr(self.matrix, order, ranked if dense and not rerank else min_max_scaled(ranked), k)
        return [
            Hit(**vars(place), score=scores[place.row], cosine=cosine[place.row], keyword=words.get(place.row))
            for place in self.index.places(order[:k])
        ]

    def by_words(self, question: str, k: int, allowed=None) -> tuple[list[int], list[float]]:
        """The best `k` by BM25 alone: rows and scores."""
        if self.keywords is None:
            self.keywords = keywords_of(self.index)
        return self.keywords.search(question, k, self.alive if allowed is None else allowed)

    def cosines(self, vector, rows: list[int]) -> dict[int, float]:
        values = self.matrix[rows] @ vector if rows else []
        return {row: float(value) for row, value in zip(rows, values, strict=True)}


def fuse(*lists: tuple[Sequence[int], float]) -> dict[int, float]:
    """Reciprocal rank fusion of (rows, weight) lists: each row's sum of weight/(60 + rank), ranks from 1."""
    scores: dict[int, float] = {}
    for rows, weight in lists:
        for rank, row in enumerate(rows if weight else (), start=1):
            scores[row] = scores.get(row, 0.0) + weight / (RRF + rank)
    return scores


def min_max_scaled(scores: Sequence[float]) -> list[float]:
    """Scores scaled to 0..1, comparable with cosines."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]


def select_mmr(matrix, rows: list[int], relevance: list[float], k: int) -> list[int]:
    """`k` of `rows` by BALANCE · relevance − (1 − BALANCE) · cosine to the nearest selected row."""
    import numpy as np

    vectors, gain = np.asarray(matrix[rows]), np.asarray(relevance)
    selected: list[int] = []
    close = np.full(len(rows), -np.inf)
    while len(selected) < min(k, len(rows)):
        value = BALANCE * gain - (1 - BALANCE) * np.where(np.isinf(close), 0.0, close)
        value[selected] = -np.inf
        best = int(np.argmax(value))
        selected.append(best)
        close = np.maximum(close, vectors @ vectors[best])
    return [rows[i] for i in selected]


def sql_condition(text: str) -> tuple[str, list]:
    """A filter such as `page > 3 and 'leave' in heading` as an SQL condition and the values of its `?`.

    Parsed by Python's own `ast`, never evaluated: comparisons of COLUMNS with numbers and texts, joined by `and`, `or`
    and `not`. A chunk without a page fails every comparison with its page. Raises GPTError for anything else.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        values: list = []
        return clause(tree, values), values
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GPTError(f"--filter {text[:60]!r} cannot be parsed; expected {FILTERS}") from error


def clause(node: ast.AST, values: list) -> str:
    """One node as SQL; its constants are added to `values`."""
    if isinstance(node, ast.BoolOp):
        word = " AND " if isinstance(node.op, ast.And) else " OR "
        return "(" + word.join(clause(part, values) for part in node.values) + ")"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return f"(NOT {clause(node.operand, values)})"
    if not isinstance(node, ast.Compare):
        raise GPTError(f"--filter has {ast.unparse(node)[:40]!r}, which is not a comparison; expected {FILTERS}")
    parts, left = [], node.left
    for sign, right in zip(node.ops, node.comparators, strict=True):
        parts.append(comparison(left, sign, right, values))
        left = right
    return "(" + " AND ".join(parts) + ")"


def comparison(left: ast.AST, sign: ast.AST, right: ast.AST, values: list) -> str:
    """`left sign right` as SQL; `in` looks for a text within a column, or for a column's value in a list."""
    if isinstance(sign, ast.In | ast.NotIn):
        no = "NOT " if isinstance(sign, ast.NotIn) else ""
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            column = operand(left, values)
            return f"({column} {no}IN ({', '.join(operand(item, values) for item in right.elts)}))"
        if not isinstance(right, ast.Name):
            raise GPTError(f"--filter: `in` searches a column or a list; expected {FILTERS}")
        return f"({no}instr(lower({operand(right, values)}), lower({operand(left, values)})))"
    if type(sign) not in SIGNS:
        raise GPTError(f"--filter does not support {type(sign).__name__}; expected {FILTERS}")
    return f"{operand(left, values)} {SIGNS[type(sign)]} {operand(right, values)}"


def operand(node: ast.AST, values: list) -> str:
    """A column, or a constant as a bound value."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = getattr(node.operand, "value", None)
        node = ast.Constant(-number) if isinstance(number, int | float) else node
    if isinstance(node, ast.Name):
        if node.id not in COLUMNS:
            raise GPTError(f"--filter has no column {node.id}{nearest(node.id, COLUMNS)}; put texts in quotes")
        return COLUMNS[node.id]
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str | int | float)
        and not isinstance(node.value, bool)
    ):
        if isinstance(node.value, int) and abs(node.value) >= 1 << 63:
            raise ValueError("more than 64 bits")
        str(node.value).encode()  # a lone surrogate raises ValueError
        values.append(node.value)
        return "?"
    raise GPTError(f"--filter has {ast.unparse(node)[:40]!r}; expected {FILTERS}")
