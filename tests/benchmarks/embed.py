"""Embedding a folder: ours beside sentence-transformers' own `encode` of the same chunks, turn by turn, in one process.

    python tests/benchmarks/embed.py [--data TEXTS_OR_FOLDER] [--chunks 192] [--rounds 3]

The embedder is minilm, from the cache of the user or fetched. Without `--data` the texts are generated stories. Then a
folder of 1,000 files is indexed twice; the second time embeds nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from jupyter_gpt import gpt
from jupyter_gpt.data import stories
from jupyter_gpt.retrieval.chunk import chunker
from jupyter_gpt.retrieval.document_sources import find_documents
from jupyter_gpt.retrieval.embed import embed
from jupyter_gpt.retrieval.read import Document


def chunks_of(data: str | None, count: int, embedder) -> list[str]:
    cut = chunker(embedder.count)
    if data:
        documents = (item.load() for item in find_documents([data])[0])
    else:
        documents = (Document("\n\n".join(islice(stories.documents(0), 20 * n, 20 * n + 20))) for n in range(99))
    return list(islice((chunk.embedded for document in documents for chunk in cut(document)), count))


def unchanged_folder() -> None:
    """A thousand files twice."""
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(islice(stories.documents(1), 1000)):
            (Path(folder) / f"{number}.txt").write_text(text[:200], encoding="utf-8")
        began = time.perf_counter()
        first = gpt.index("benchmark-folder", folder, overwrite=True).report.embedded
        middle = time.perf_counter()
        second = gpt.index("benchmark-folder", folder).report.embedded
        ended = time.perf_counter()
    print(
        f"1,000 files: {first:,} chunks in {middle - began:.1f} s; again: {second} embedded in {ended - middle:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--chunks", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-folder", action="store_true")
    given = parser.parse_args()
    from sentence_transformers import SentenceTransformer

    ours = gpt.indexes.embedders.get("minilm")
    peer = SentenceTransformer(str(gpt.indexes.embedders.folder("minilm", "embedder", None)))
    texts = chunks_of(given.data, given.chunks, ours)
    runs = {"sentence-transformers": lambda: peer.encode(texts), "ours": lambda: embed(ours, texts)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    vectors = {name: run() for name, run in runs.items()}
    for _ in range(given.rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    cosine = (np.asarray(vectors["ours"]) * np.asarray(vectors["sentence-transformers"])).sum(1).min()
    ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
    for name, taken in times.items():
        print(f"{name:22} {len(texts) / statistics.median(taken):7.1f} chunks/s")
    print(
        f"{ratio:.2f}x, {ours.module.dtype}, least cosine {cosine:.5f}, {len(texts)} chunks of "
        f"{statistics.mean(map(ours.count, texts)):.0f} tokens"
    )
    if not given.no_folder:
        unchanged_folder()


if __name__ == "__main__":
    main()
