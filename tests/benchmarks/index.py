"""Nearest vectors: the graph against comparing every one, at 200,000 vectors of 384 dimensions.

    python tests/benchmarks/index.py [--rows 200000] [--data vectors.npy]

Vectors are generated: clustered, as embeddings of texts are, and pure noise, for which recall is lower and is told.
With `--data` a float32 array of real embeddings `(n, 384)` is measured instead. Queries are vectors moved a little.
Times are medians of single queries; recall is that of the 10 nearest. Then the exact search at half the rows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from jupyter_gpt.retrieval.dense import Nearest

WIDTH, QUERIES, K = 384, 200, 10


def clustered(count: int, draw) -> np.ndarray:
    """Topics in a space of few dimensions, and noise over all of them."""
    middles = draw.normal(size=(count // 200, WIDTH)).astype(np.float32)
    spread = draw.normal(0, 0.7, (count, WIDTH)).astype(np.float32)
    return unit(middles[draw.integers(0, len(middles), count)] + spread)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def measured(name: str, matrix: np.ndarray, draw, exact: int) -> None:
    alive = np.ones(len(matrix), dtype=bool)
    queries = unit(
        matrix[draw.choice(len(matrix), QUERIES)] + draw.normal(0, 0.03, (QUERIES, WIDTH)).astype(np.float32)
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        nearest = Nearest(matrix, alive, Path(folder) / "hnsw.faiss", exact)
        built = time.perf_counter() - began
        times, same = [], 0
        for query in queries:
            began = time.perf_counter()
            rows, _ = nearest.search(query, K)
            times.append(time.perf_counter() - began)
            same += len(set(rows) & set(np.argpartition(-(matrix @ query), K)[:K].tolist()))
    kind = f"graph, {nearest.candidates} candidates" if nearest.graph is not None else "every one"
    print(
        f"{name:32} {len(matrix):8,} rows  {kind:22} built in {built:6.1f} s   recall@10 {same / QUERIES / K:.4f}   "
        f"query {1e3 * statistics.median(times):.2f} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--noise", action="store_true", help="also pure noise, which takes long to build")
    given = parser.parse_args()
    draw = np.random.default_rng(0)
    matrix = (
        unit(np.load(given.data, allow_pickle=False).astype(np.float32)) if given.data else clustered(given.rows, draw)
    )
    measured("every one compared", matrix[: len(matrix) // 2], draw, len(matrix))
    measured("real" if given.data else "clustered", matrix, draw, 1000)
    if given.noise:
        noise = unit(draw.normal(size=(given.rows, WIDTH)).astype(np.float32))
        measured("pure noise", noise, draw, 1000)


if __name__ == "__main__":
    main()
