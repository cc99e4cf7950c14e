"""An index on disk: documents, chunks and vectors, as plain files that can be moved.

    index.json     what it was made with: embedder, chunk size, sources
    chunks.sqlite  documents, chunks, and which row of the vectors belongs to which text
    vectors-N.f32  unit vectors of fp32, one row after another, only ever appended to; N is the database's user_version
    hnsw.faiss, keyword/   made from these, and rebuilt when out of date

A document is known by the hash of its content, a vector by the hash of its text: so a document that
moves, comes twice or comes back is embedded once. SQLite is the truth: vectors are written first, and rows that a kill
left without an entry are overwritten. A vector whose text is in no chunk any more is a tombstone.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, reading
from jupyter_gpt.retrieval.chunk import Chunk, with_heading

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (source TEXT PRIMARY KEY, content TEXT NOT NULL, bytes INTEGER, mtime INTEGER,
    checked REAL, notes TEXT);
CREATE TABLE IF NOT EXISTS chunks (id INTEGER PRIMARY KEY, content TEXT NOT NULL, n INTEGER, start INTEGER,
    page INTEGER, heading TEXT, text TEXT, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (hash TEXT PRIMARY KEY, row INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS chunks_by_content ON chunks (content);
CREATE INDEX IF NOT EXISTS chunks_by_hash ON chunks (hash);
CREATE INDEX IF NOT EXISTS documents_by_content ON documents (content);
"""
FORMAT = 1
FIELDS = {  # of index.json
    "embedder": str,
    "chunk_tokens": int,
    "overlap": int | float,
    "sources": list,
    "probe": list,
    "dimensions": int,
    "updated": int | float,
}
# Errors of a sound database.
NOT_DAMAGED = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_BUSY")
MAX_TOMBSTONES = 0.2  # share of the vectors, above which they are compacted


@dataclass(frozen=True)
class Place:
    """A chunk with its place. `sources` are all documents that contain it, `source` the first of them."""

    row: int
    text: str
    source: str
    page: int | None
    heading: str
    chunk: int
    sources: tuple[str, ...]


class Index:
    """The files of one index. Every call opens the database again, so that any thread may call."""

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def about(self) -> dict:
        """The content of `index.json`. Raises GPTError when it is damaged or of a later version."""
        path = self.folder / "index.json"
        if not path.exists():
            return {}
        with reading(f"index {self.folder.name}: its index.json", "--overwrite rebuilds it"):
            about = store.read_json(path, **FIELDS)
            missing = [name for name in FIELDS if name not in about and name not in ("sources", "probe")]
            if missing or not all(isinstance(source, str) for source in about.get("sources", ())):
                raise ValueError(f"its {missing[0]} is missing" if missing else "a source is not a text")
            time.localtime(about["updated"] + sum(map(float, about.get("probe", ()))))
        if about.get("format", FORMAT) != FORMAT:
            raise GPTError(
                f"index {self.folder.name} was made by a later version of jupyter_gpt (format {about['format']})"
            )
        return about

    def write_about(self, about: dict) -> None:
        store.write_json(self.folder / "index.json", {**about, "format": FORMAT, "updated": time.time()})

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """The database; what was done is kept when the block ends, and none of it when it raises."""
        path = self.folder / "chunks.sqlite"
        new = not path.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            db = sqlite3.connect(path, timeout=30)
            try:
                if new:
                    db.executescript(SCHEMA)
                with db:
                    yield db
            finally:
                db.close()
        except sqlite3.DatabaseError as error:
            if str(getattr(error, "sqlite_errorname", "")).startswith(NOT_DAMAGED):
                raise GPTError(
                    f"index {self.folder.name} could not be written or opened ({error}): the disk is full, read-only "
                    f"or in use at {self.folder}; the index is as it was"
                ) from error
            raise GPTError(f"index {self.folder.name} is damaged ({error}): --overwrite rebuilds it") from error

    @property
    def stamp(self) -> int:
        """What is another number after each change: SQLite's own count of them (its file format, section 1.3.8)."""
        with (
            reading(f"index {self.folder.name}", "--overwrite rebuilds it"),
            (self.folder / "chunks.sqlite").open("rb") as file,
        ):
            file.seek(24)
            return int.from_bytes(file.read(4), "big")

    @property
    def dimensions(self) -> int:
        return self.about["dimensions"]

    def counts(self) -> dict[str, int]:
        """How many documents, chunks (each text once), rows of vectors, and texts still without a vector."""
        with self.open() as db:
            one = lambda query: db.execute(query).fetchone()[0]  # noqa: E731
            return {
                "documents": one("SELECT count(*) FROM documents"),
                "chunks": one("SELECT count(DISTINCT hash) FROM chunks"),
                "rows": row_count(db),
                "pending": one("SELECT count(DISTINCT hash) FROM chunks WHERE hash NOT IN (SELECT hash FROM vectors)"),
            }

    def matrix(self):
        """The vectors `(rows, dimensions)`, fp32, mapped from the file. Raises GPTError when it is too short."""
        import numpy as np

        with self.open() as db:
            rows, path = row_count(db), self.vectors(db)
        if not rows:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        if not path.exists() or path.stat().st_size < rows * self.dimensions * 4:
            raise GPTError(f"index {self.folder.name} is damaged: {path.name} is cut short; --overwrite rebuilds it")
        return np.memmap(path, dtype="<f4", mode="r", shape=(rows, self.dimensions))

    def vectors(self, db) -> Path:
        """The file of the vectors."""
        return self.folder / f"vectors-{db.execute('PRAGMA user_version').fetchone()[0]}.f32"

    def alive(self, where: str = "", values: Sequence = ()):
        """Which rows belong to a chunk `(rows,)`, bool; `where` and `values` are of `search.sql_condition`."""
        import numpy as np

        query = "SELECT DISTINCT v.row FROM vectors v JOIN chunks c ON c.hash = v.hash"
        if where:
            query += f" JOIN documents d ON d.content = c.content WHERE {where}"
        with self.open() as db:
            mask = np.zeros(row_count(db), dtype=bool)
            mask[np.fromiter((row for (row,) in db.execute(query, values)), dtype=np.int64)] = True
        return mask

    def append(self, vectors, hashes: list[str]) -> None:
        """Keep the vectors `(n, dimensions)` of the texts with these hashes; on the disk when this returns."""
        with self.open() as db:
            start, path, width = row_count(db), self.vectors(db), vectors.shape[1] * 4
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.truncate(start * width)
                file.seek(start * width)
                file.write(vectors.astype("<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
            db.executemany("INSERT INTO vectors VALUES (?, ?)", [(h, start + i) for i, h in enumerate(hashes)])

    def pending(self) -> list[tuple[str, int]]:
        """Hash and length of each text without a vector, the longest first."""
        with self.open() as db:
            return db.execute(
                "SELECT hash, max(length(text)) AS size FROM chunks WHERE hash NOT IN (SELECT hash FROM vectors)"
                " GROUP BY hash ORDER BY size DESC, hash"
            ).fetchall()

    def texts(self, hashes: list[str]) -> list[str]:
        """What is embedded of the texts with these hashes, in their order."""
        with self.open() as db:
            return [
                with_heading(*db.execute("SELECT text, heading FROM chunks WHERE hash = ? LIMIT 1", (h,)).fetchone())
                for h in hashes
            ]

    def add_document(self, db, source: str, content: str, size: int | None, mtime: int | None, notes: str) -> None:
        db.execute(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)",
            (source, content, size, mtime, time.time(), notes),
        )

    def add_chunks(self, db, content: str, chunks: Iterable[Chunk]) -> int:
        """Keep the chunks of a content; how many there are."""
        before = db.total_changes
        db.executemany(
            "INSERT INTO chunks (content, n, start, page, heading, text, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((content, n, c.start, c.page, c.heading, c.text, c.hash) for n, c in enumerate(chunks)),
        )
        return db.total_changes - before

    def places(self, rows: list[int]) -> list[Place]:
        """The chunks of these rows, in their order."""
        query = """SELECT c.text, d.source, c.page, c.heading, c.n FROM vectors v JOIN chunks c ON c.hash = v.hash
                   JOIN documents d ON d.content = c.content WHERE v.row = ? ORDER BY d.source, c.n"""
        with self.open() as db:
            matches = [(int(row), db.execute(query, (int(row),)).fetchall()) for row in rows]
        return [Place(row, *same[0], tuple(dict.fromkeys(each[1] for each in same))) for row, same in matches if same]

    def compact(self) -> int:
        """Take the tombstones out of the vectors when they are many; how many went. Whole or not at all."""
        import numpy as np

        alive = self.alive()
        dead = len(alive) - int(alive.sum())
        if dead <= MAX_TOMBSTONES * len(alive):
            return 0
        alive_rows, matrix = np.flatnonzero(alive), self.matrix()
        with self.open() as db:
            old = self.vectors(db)
            version = db.execute("PRAGMA user_version").fetchone()[0] + 1
            with (self.folder / f"vectors-{version}.f32").open("wb") as file:
                for start in range(0, len(alive_rows), 65536):
                    file.write(matrix[alive_rows[start : start + 65536]].tobytes())
                file.flush()
                os.fsync(file.fileno())
            del matrix
            new = {int(row): i for i, row in enumerate(alive_rows)}
            rows = db.execute("SELECT hash, row FROM vectors").fetchall()
            db.execute("DELETE FROM vectors")
            db.executemany("INSERT INTO vectors VALUES (?, ?)", ((h, new[r]) for h, r in rows if r in new))
            db.execute(f"PRAGMA user_version = {version}")
        old.unlink(missing_ok=True)
        (self.folder / "hnsw.faiss").unlink(missing_ok=True)
        return dead

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def row_count(db: sqlite3.Connection) -> int:
    """How many rows of the vectors count, tombstones with them."""
    return db.execute("SELECT coalesce(max(row) + 1, 0) FROM vectors").fetchone()[0]
