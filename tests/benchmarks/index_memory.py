"""How much memory an index takes: 100,000 chunks made, kept and searched in one process, torch and the embedder with
it.

    python tests/benchmarks/index_memory.py [--chunks 100000] [--chunk-tokens 200]

Texts are generated stories in files, cut and counted by minilm's own tokenizer; their vectors are drawn by lot, for
embedding them all would take an hour and no more memory than one batch. The question is embedded by minilm. Peaks are
those of the whole process, as the system counts them.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from jupyter_gpt import gpt
from jupyter_gpt.data import stories
from jupyter_gpt.retrieval.build import Report, update
from jupyter_gpt.retrieval.document_sources import find_documents
from jupyter_gpt.retrieval.embed import embed
from jupyter_gpt.retrieval.index import Index
from jupyter_gpt.retrieval.search import Searcher

FILES = 500


class Lot:
    """Counts as minilm does; its vectors are drawn, 64 at once."""

    name, remote = "lot", False

    def __init__(self, real):
        self.real, self.room, self.dimensions, self.count = real, real.room, real.dimensions, real.count
        self.draw = np.random.default_rng(0)

    def batches(self, texts, kind="document"):
        if kind == "query":
            yield from self.real.batches(texts, kind)
            return
        for start in range(0, len(texts), 64):
            places = list(range(start, min(len(texts), start + 64)))
            vectors = self.draw.normal(size=(len(places), self.dimensions)).astype(np.float32)
            yield places, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def peak() -> float:
    """The most memory this process has had so far, MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def write(folder: Path, count: int, chunk_tokens: int, counted) -> None:
    """Files that make about `count` chunks, each of which repeats some of the one before."""
    told = stories.documents(0)
    for number in range(FILES):
        wanted, texts = 0.6 * count / FILES * chunk_tokens, []
        while wanted > 0:
            texts.append(next(told))
            wanted -= counted(texts[-1])
        (folder / f"{number}.txt").write_text("\n\n".join(texts), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--chunk-tokens", type=int, default=200)
    given = parser.parse_args()
    real = gpt.indexes.embedders.get("minilm")
    question = "Who saw three small birds?"
    vector = embed(real, [question], "query")[0]
    print(f"before, with torch and minilm: {peak():,.0f} MB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home, texts = Path(folder) / "index", Path(folder) / "texts"
        home.mkdir()
        texts.mkdir()
        write(texts, given.chunks, given.chunk_tokens, real.count)
        index, report, began = Index(home), Report(), time.perf_counter()
        index.write_about(
            {
                "chunk_tokens": given.chunk_tokens,
                "overlap": 0.15,
                "dimensions": real.dimensions,
                "probe": [],
                "embedder": "lot",
                "sources": [],
                "complete": False,
            }
        )
        for _ in update(index, find_documents([str(texts)])[0], Lot(real), report, lambda: False):
            pass
        chunks = index.counts()["chunks"]
        print(
            f"{chunks:,} chunks indexed in {time.perf_counter() - began:.0f} s, {index.size / 1e6:,.0f} MB on disk, "
            f"peak {peak():,.0f} MB",
            flush=True,
        )
        hits = Searcher(index).search(question, vector, 5, hybrid=True, mmr=True)
        print(f"searched, {len(list(islice(hits, 5)))} hits: peak {peak():,.0f} MB (wanted: under 1,500)")


if __name__ == "__main__":
    main()
