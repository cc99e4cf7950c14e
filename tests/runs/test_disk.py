"""A disk that is full, read-only or forbidden from the n-th write on: one line that names it, and what was there
stays.
"""

import sqlite3
import sys

import pytest

from helpers import TESTS
from jupyter_gpt.errors import GPTError

sys.path.insert(0, str(TESTS / "benchmarks"))


def test_an_index_on_a_full_disk_is_not_damaged(tmp_path, monkeypatch):
    from jupyter_gpt.retrieval.chunk import Chunk
    from jupyter_gpt.retrieval.index import Index

    index, real = Index(tmp_path / "kb"), sqlite3.connect
    assert index.counts()["chunks"] == 0

    def connect(*args, **more):
        db = real(*args, **more)
        db.execute("PRAGMA max_page_count = 1")  # SQLite then answers as on a full disk
        return db

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(GPTError, match=r"index kb could not be written .*full") as said, index.open() as db:
        index.add_chunks(db, "content", [Chunk("word " * 5000, 0, None, "")] * 9)
    assert "damaged" not in str(said.value) and "overwrite" not in str(said.value)
