"""Nearest vectors, by FAISS: every one compared up to 100,000 rows, a graph (HNSW; Malkov & Yashunin 2018) above.

Measured with tests/benchmarks/index.py, 384 dimensions on two cores: comparing 100,000 takes 13 ms a query, the graph
under 1 ms whatever their number, and a minute and more to build for each 100,000.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from pathlib import Path

EXACT = 100_000  # rows up to which every vector is compared
NEIGHBOURS, BUILDING, RECALL = (
    32,
    200,
    0.99,
)  # of the graph: links per node; candidates at building; target recall@10
FEW = 20_000  # rows left by a filter up to which they are compared one by one, graph or not
PROBES = 64  # queries with which the graph is measured
LADDER = (64, 96, 128, 192, 256, 384, 512)  # candidates kept while searching


class Nearest:
    """The unit vectors `matrix` `(rows, dimensions)`, ready to be searched; `alive` `(rows,)` bool: not tombstones."""

    def __init__(self, matrix, alive, file: Path, exact: int = EXACT):
        import faiss

        self.matrix, self.alive, self.graph, self.candidates, self.recall = matrix, alive, None, 0, 1.0
        self.all = bool(alive.all())
        if len(matrix) > exact:
            self.graph = hnsw_graph(matrix, file)
            self.candidates, self.recall = tune_search(self.graph, matrix)
        else:
            self.flat = faiss.IndexFlatIP(matrix.shape[1])
            if len(matrix):
                self.flat.add(matrix)

    def search(self, query, k: int, allowed=None) -> tuple[list[int], list[float]]:
        """Rows and cosines of the `k` nearest to `query` `(dimensions,)`, of those in `allowed` `(rows,)` bool."""
        import faiss
        import numpy as np

        mask = self.alive if allowed is None else self.alive & allowed
        left = int(mask.sum())
        k = min(k, left)
        if k == 0:
            return [], []
        if self.graph is not None and left <= FEW:
            rows = np.flatnonzero(mask)
            scores = self.matrix[rows] @ query
            best = np.argsort(-scores, kind="stable")[:k]
            return rows[best].tolist(), scores[best].tolist()
        selector = None
        if allowed is not None or not self.all:
            bits = np.packbits(mask, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(bits))
        if self.graph is None:
            how = faiss.SearchParameters(sel=selector) if selector else None
            faiss_index = self.flat
        else:
            how = faiss.SearchParametersHNSW(sel=selector, efSearch=max(self.candidates, 2 * k))
            faiss_index = self.graph
        scores, rows = faiss_index.search(np.ascontiguousarray(query[None], dtype=np.float32), k, params=how)
        near = rows[0] >= 0
        return rows[0][near].tolist(), scores[0][near].tolist()


def checksum(file: Path) -> int:
    """The CRC-32 of a file."""
    crc = 0
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def hnsw_graph(matrix, file: Path):
    """The graph over all rows: read from `file` where it is there, what it lacks added, and written again."""
    import faiss
    import numpy as np

    graph = None
    sum_file = file.with_suffix(".crc32")
    with suppress(OSError, ValueError):  # not there, or damaged
        if int(sum_file.read_text(encoding="ascii")) == checksum(file):  # faiss does not check the links of a graph
            graph = faiss.read_index(str(file))
    if graph is None or graph.d != matrix.shape[1] or graph.ntotal > len(matrix):
        graph = faiss.IndexHNSWFlat(matrix.shape[1], NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = BUILDING
    if graph.ntotal < len(matrix):
        graph.add(np.ascontiguousarray(matrix[graph.ntotal :]))
        temporary = file.with_name(f".{file.name}")
        faiss.write_index(graph, str(temporary))
        sum_file.write_text(str(checksum(temporary)), encoding="ascii")
        temporary.replace(file)
    return graph


def tune_search(graph, matrix, k: int = 10) -> tuple[int, float]:
    """The candidates (efSearch) at which a search finds `RECALL` of the true `k` nearest, and the recall measured, with
    perturbed vectors as queries.
    """
    import faiss
    import numpy as np

    draw = np.random.default_rng(0)
    sample = np.array(matrix[draw.choice(len(matrix), PROBES, replace=False)])
    queries = sample + draw.normal(0, 0.5 / np.sqrt(sample.shape[1]), sample.shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    _, truth = faiss.knn(queries, np.ascontiguousarray(matrix), k, metric=faiss.METRIC_INNER_PRODUCT)
    for candidates in LADDER:
        _, nearest = graph.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=candidates))
        recall = sum(len(set(a) & set(b)) for a, b in zip(truth.tolist(), nearest.tolist(), strict=True)) / truth.size
        if recall >= RECALL:
            break
    return candidates, recall
