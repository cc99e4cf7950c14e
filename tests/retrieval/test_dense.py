"""Nearest vectors: against numpy's own product, compared one by one and through the graph."""

import numpy as np
import pytest

from jupyter_gpt.retrieval.dense import Nearest

WIDTH = 16


def unit(count, seed=0, middles=30):
    """Clustered unit vectors, as embeddings of texts are."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(middles, WIDTH))
    x = centres[draw.integers(0, middles, count)] + 0.4 * draw.normal(size=(count, WIDTH))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def truth(matrix, query, k, mask=None):
    scores = matrix @ query
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    return np.argsort(-scores)[:k].tolist()


@pytest.mark.parametrize("exact", [5000, 100])
def test_the_nearest_of_those_that_are_allowed(tmp_path, exact):
    matrix, queries = unit(2000), unit(20, 1)
    alive = np.random.default_rng(2).random(2000) > 0.1
    allowed = np.random.default_rng(3).random(2000) > 0.5
    nearest = Nearest(matrix, alive, tmp_path / "hnsw.faiss", exact)
    for masks, mask in (((), alive), ((allowed,), alive & allowed)):
        same = 0
        for query in queries:
            rows, scores = nearest.search(query, 10, *masks)
            assert np.allclose(scores, matrix[rows] @ query, atol=1e-5) and mask[rows].all()
            assert scores == sorted(scores, reverse=True)
            same += len(set(rows) & set(truth(matrix, query, 10, mask)))
        assert same == 200 if exact > 2000 else same >= 196


def test_the_graph_through_a_wide_filter(tmp_path, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.retrieval.dense.FEW", 10)
    matrix, queries = unit(2000), unit(20, 1)
    alive = np.ones(2000, dtype=bool)
    allowed = np.random.default_rng(3).random(2000) > 0.5
    nearest = Nearest(matrix, alive, tmp_path / "hnsw.faiss", 100)
    assert nearest.recall >= 0.99
    found = [nearest.search(query, 10, allowed)[0] for query in queries]
    assert all(allowed[rows].all() for rows in found)
    same = sum(len(set(r) & set(truth(matrix, q, 10, allowed))) for r, q in zip(found, queries, strict=True))
    assert same >= 190


def test_the_graph_is_kept_and_grows(tmp_path, monkeypatch):
    import faiss

    matrix, file = unit(2000), tmp_path / "hnsw.faiss"
    added = []
    real = faiss.IndexHNSWFlat.add
    monkeypatch.setattr(faiss.IndexHNSWFlat, "add", lambda self, x: added.append(len(x)) or real(self, x))
    everyone = np.ones(2000, dtype=bool)
    Nearest(matrix[:1500], everyone[:1500], file, 100)
    Nearest(matrix[:1500], everyone[:1500], file, 100)
    again = Nearest(matrix, everyone, file, 100)
    assert added == [1500, 500]
    assert again.search(matrix[1800], 1)[0] == [1800]


def test_an_empty_index_and_few_rows(tmp_path):
    none = Nearest(np.zeros((0, WIDTH), dtype=np.float32), np.zeros(0, dtype=bool), tmp_path / "x")
    assert none.search(unit(1)[0], 5) == ([], [])
    two = Nearest(unit(2), np.array([True, False]), tmp_path / "x")
    assert two.search(unit(1)[0], 5)[0] == [0]
