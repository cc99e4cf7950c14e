"""An indexing run: a generator that brings an index up to date with its documents and yields its progress.

First every document that is new or changed is cut into chunks, which are written at once; then each text without a
vector is embedded, batch by batch, each written at once. So a run that is stopped or killed continues where it was:
what has its chunks is not read again, what has its vector is not embedded again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from jupyter_gpt.retrieval import keyword
from jupyter_gpt.retrieval.chunk import chunker, with_heading
from jupyter_gpt.retrieval.document_sources import Item
from jupyter_gpt.retrieval.embed import embed
from jupyter_gpt.retrieval.index import Index
from jupyter_gpt.retrieval.read import LARGEST, Document, Unreadable
from jupyter_gpt.retrieval.reader_process import Reader

WINDOW = 1024  # texts that are sorted by length together
KEEP = 2.0  # seconds of embedding between two writes to the disk
SEVERAL = 64  # chunks that are cut before others have their turn
EACH = """FROM (SELECT v.row AS row, c.text AS text, c.heading AS heading FROM vectors v
JOIN chunks c ON c.hash = v.hash GROUP BY v.row ORDER BY v.row)"""  # one chunk of each row
FRESH = 2.0  # seconds within which a file may change without its time telling
# Questions of everyday and school, far from one another, which a collection answers in few cases.
UNRELATED = (
    "How do I change the tyre of a bicycle?",
    "Which vitamins are in an orange?",
    "What is the capital of Mongolia?",
    "How is steel made from iron ore?",
    "Who won the chess championship of 1972?",
    "How deep is the Pacific Ocean?",
    "What does a transistor do?",
    "How do bees make honey?",
    "When was the treaty of Westphalia signed?",
    "How do I reset the password of my router?",
    "What is the boiling point of ethanol?",
    "How many strings has a cello?",
    "What is the exchange rate of the yen?",
    "How is mozzarella made?",
    "Why is the sky blue?",
    "What causes an eclipse?",
    "Which muscles does swimming train?",
    "How do volcanoes form?",
    "What is a prime number?",
    "How do I prune roses?",
    "Which language is spoken in Brazil?",
    "What is the speed of sound?",
    "How does a sewing machine work?",
    "What is the longest bone of the body?",
)


@dataclass
class Report:
    """What a run did: `skipped` (document, reason), `duplicates` (document, the same as), `notes` (document, note)."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    chunks: int = 0
    embedded: int = 0
    compacted: int = 0
    seconds: float = 0.0
    stopped: bool = False


Progress = tuple[str, int, int]  # activity, done, total


def update(
    index: Index,
    items: Sequence[Item],
    embedder,
    report: Report,
    stopping: Callable[[], bool],
    keep_others: bool = False,
) -> Iterator[Progress]:
    """Make `index` contain exactly the documents of `items`, with `keep_others` its own as well.

    Yields about once a document and once a batch. When `stopping()` answers True it ends early, with everything that
    was done kept and `report.stopped` set. Raises GPTError where the embedder fails; what was embedded stays.
    """
    began = time.perf_counter()
    try:
        gone = yield from scan(index, items, embedder, report, stopping, keep_others)
        if not report.stopped:
            yield from embed_pending(index, embedder, report, stopping)
        if not report.stopped:
            if gone or report.changed:  # removed only once all that is new can be found
                with index.open() as db:
                    db.executemany("DELETE FROM documents WHERE source = ?", ((source,) for source in gone))
                    db.execute("DELETE FROM chunks WHERE content NOT IN (SELECT content FROM documents)")
                report.removed = gone
            yield from finish(index, embedder, report)
    finally:
        report.seconds = time.perf_counter() - began


def up_to_date(index: Index, items: Sequence[Item], keep_others: bool = False) -> bool:
    """Whether a run would find nothing to do; found out without an embedder."""
    if not index.about.get("complete"):
        return False
    stored = documents_of(index)
    if not keep_others and stored.keys() - {item.source for item in items}:
        return False
    reader = Reader()
    try:
        for item in items:
            row = stored.get(item.source)
            if row is None:
                return False
            if is_unchanged(item, row):
                continue
            document = reader.start(item).wait() if item.path is None else None  # its hash is that of its text
            if row[0] != hash_of(item, document):
                return False
        return True
    except Unreadable:
        return False
    finally:
        reader.close()


def documents_of(index: Index) -> dict[str, list]:
    """Each document's content hash, bytes, time of its last change (ns) and when it was looked at (s)."""
    with index.open() as db:
        return {
            source: row for source, *row in db.execute("SELECT source, content, bytes, mtime, checked FROM documents")
        }


def stat_of(item: Item) -> tuple[int | None, int | None]:
    """Size in bytes and modification time in ns of its file; None for an item without a file."""
    if item.path is None or not item.path.exists():
        return None, None
    stat = item.path.stat()
    return stat.st_size, stat.st_mtime_ns


def is_unchanged(item: Item, row: Sequence) -> bool:
    """Whether the file's size and time tell that it is what it was, so that it need not be read."""
    size, mtime = stat_of(item)
    return size is not None and row[1:3] == [size, mtime] and mtime / 1e9 < row[3] - FRESH


def scan(index: Index, items, embedder, report: Report, stopping, keep_others: bool) -> Iterator[Progress]:
    """Look at every document, and chunk what is new or changed. Returns those that are gone."""
    about = index.about
    cut = chunker(embedder.count, about["chunk_tokens"], about["overlap"])
    stored = documents_of(index)
    with index.open() as db:
        first = dict(db.execute("SELECT content, min(source) FROM documents GROUP BY content"))
    gone = [] if keep_others else sorted(stored.keys() - {item.source for item in items})
    ready, kept_at, reader = [], time.perf_counter(), Reader()
    try:
        for number, item in enumerate(items):
            progress = ("reading", number, len(items))
            yield progress
            stored_row = stored.get(item.source)
            if stored_row and is_unchanged(item, stored_row):
                report.unchanged += 1
                continue
            stat = stat_of(item)  # before it is read: what is written meanwhile is seen next time
            document, chunks, content = None, None, None
            try:
                if item.path is not None:
                    content = hash_of(item)
                if content not in first:
                    reading = reader.start(item)
                    while not reading.done():
                        yield progress
                        if stopping():
                            reading.end()
                            report.stopped = True
                            return []
                    document = reading.result()
            except Unreadable as why:
                report.skipped.append((item.source, str(why)))
                gone += [item.source] if stored_row else []
                continue
            content = content or hash_of(item, document)
            if content not in first:
                chunks = []
                for chunk in cut(document):
                    chunks.append(chunk)
                    if len(chunks) % SEVERAL == 0:
                        yield progress
                        if stopping():
                            break
            if stopping():
                report.stopped = True
                return []
            ready.append((item.source, content, stat, document, chunks))
            if stored_row and stored_row[0] == content:
                report.unchanged += 1
            else:
                (report.changed if stored_row else report.added).append(item.source)
                if content in first and first[content] != item.source:
                    report.duplicates.append((item.source, first[content]))
            first.setdefault(content, item.source)
            if time.perf_counter() - kept_at > KEEP:
                keep_documents(index, ready, report)
                kept_at = time.perf_counter()
    finally:
        reader.close()
        keep_documents(index, ready, report)
    return gone


def keep_documents(index: Index, ready: list, report: Report) -> None:
    """Write what was read since the last time, all of it or nothing; empties `ready`."""
    if not ready:
        return
    with index.open() as db:
        for source, content, (size, mtime), document, chunks in ready:
            if chunks is not None:
                report.chunks += index.add_chunks(db, content, chunks)
                report.notes += [(source, note) for note in document.notes]
            notes = "; ".join(document.notes) if document else ""
            index.add_document(db, source, content, size, mtime, notes)
    ready.clear()


def hash_of(item: Item, document: Document | None = None) -> str:
    """SHA-256 of a document's file, or of the text of `document` if it has no file.

    Raises Unreadable for a file that is too large, or cannot be read.
    """
    if item.path is None:
        text = item.text if item.text is not None else document.text
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    try:
        if item.path.stat().st_size > LARGEST:
            item.load()
        with item.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() + item.path.suffix.lower()
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error


def embed_pending(index: Index, embedder, report: Report, stopping) -> Iterator[Progress]:
    """Embed every text that has no vector, the longest first, so that the time left is not underestimated."""
    import numpy as np

    pending = index.pending()
    total, done = sum(size for _, size in pending) or 1, 0
    waiting: tuple[list, list] = ([], [])
    kept_at = time.perf_counter()

    def keep() -> None:
        nonlocal kept_at
        if waiting[0]:
            index.append(np.concatenate(waiting[0]), [h for hashes in waiting[1] for h in hashes])
            waiting[0].clear()
            waiting[1].clear()
        kept_at = time.perf_counter()

    try:
        for start in range(0, len(pending), WINDOW):
            window = pending[start : start + WINDOW]
            for places, vectors in embedder.batches(index.texts([h for h, _ in window])):
                waiting[0].append(vectors)
                waiting[1].append([window[place][0] for place in places])
                done += sum(window[place][1] for place in places)
                report.embedded += len(places)
                if time.perf_counter() - kept_at > KEEP:
                    keep()
                yield "embedding", done, total
                if stopping():
                    report.stopped = True
                    return
    finally:
        keep()


def finish(index: Index, embedder, report: Report) -> Iterator[Progress]:
    """What search needs besides the vectors: few tombstones, the keyword index, and the relevance threshold."""
    about = index.about
    yield "finishing", 0, 2
    report.compacted = index.compact()
    keywords_of(index)
    yield "finishing", 1, 2
    near = relevance_threshold(index, embedder) if report.embedded or "near" not in about else about["near"]
    index.write_about({**about, "near": near, "complete": True})


def keywords_of(index: Index) -> keyword.Keywords:
    """The keyword index of the index as it is now: read from disk, or built."""
    stamp = index.stamp
    keywords = keyword.load(index.folder / "keyword", stamp)
    if keywords is None:
        with index.open() as db:
            rows = [row for (row,) in db.execute(f"SELECT row {EACH}")]
            texts = (with_heading(text, heading) for text, heading in db.execute(f"SELECT text, heading {EACH}"))
            keywords = keyword.build(texts, rows, index.folder / "keyword", stamp)
    return keywords


def relevance_threshold(index: Index, embedder) -> float:
    """The cosine from which on a hit is relevant: one that three quarters of unrelated questions do not reach with
    their best hits, and 95% of the pairs of these questions not with each other, which counts where an index is small.
    """
    import numpy as np

    matrix, alive = index.matrix(), index.alive()
    questions = embed(embedder, UNRELATED, "query")
    among = (questions @ questions.T)[np.triu_indices(len(questions), 1)]
    best = np.full(len(questions), -1.0, dtype=np.float32)
    for start in range(0, len(matrix), 65536):
        rows = np.flatnonzero(alive[start : start + 65536]) + start
        if len(rows):
            best = np.maximum(best, (matrix[rows] @ questions.T).max(0))
    return float(max(np.quantile(best, 0.75), np.quantile(among, 0.95)))
