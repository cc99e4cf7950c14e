"""A disk that is full, read-only or forbidden from the n-th write on: one line that names it, and what was there
stays.
"""

import builtins
import errno
import io
import os
import random
import sqlite3
import sys
from pathlib import Path

import pytest

from helpers import TESTS
from jupyter_gpt.errors import GPTError

sys.path.insert(0, str(TESTS / "benchmarks"))
CHANGED = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Disk:
    """Refuses every change under `root` from the `left`-th on, where `error` is set."""

    def __init__(self, root: Path, patch):
        self.root, self.error, self.left = root, None, 0
        for module, name in ((io, "open"), (builtins, "open"), (os, "replace"), (os, "mkdir"), (os, "open")):
            patch.setattr(module, name, self.guarded(name, getattr(module, name)))

    def guarded(self, name: str, real):
        def call(path, *rest, **more):
            mode = rest[0] if rest else more.get("mode", more.get("flags", "r"))
            changes = name in ("replace", "mkdir") or (
                mode & CHANGED if isinstance(mode, int) else set("wax+") & set(str(mode))
            )
            if (
                changes
                and self.error
                and not isinstance(path, int)
                and Path(os.fsdecode(path)).is_relative_to(self.root)
            ):
                self.left -= 1
                if self.left < 0:
                    raise OSError(self.error, os.strerror(self.error), os.fsdecode(path))
            return real(path, *rest, **more)

        return call


def test_every_magic_says_that_the_disk_refuses(tmp_path, monkeypatch):
    import cells
    import corrupt
    from IPython.core.interactiveshell import InteractiveShell

    for name in ("HOME", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"JUPYTER_GPT_{name}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    sources = [
        "%%corpus new\n$docs: 1",
        f"%%pretrain new --steps 1 --overwrite --corpus mix {corrupt.TINY}\n",
        "%gpt resume cut",
        "%gpt index docs2 $docs --embedder story --chunk-tokens 24",
        "%gpt index docs $docs --embedder story --overwrite --chunk-tokens 16",
        "%gpt save story saved",
        "%gpt reward r --base story --rankings votes --steps 1 --overwrite",
        "%%sft s --base story --lora 1 --steps 1 --seed 1 --overwrite\n$docs_chat: 1",
        "%%prompt story --max-tokens 2\nThe old fox",
        "%gpt models",
        "%gpt search docs fox --hybrid --map none",
        "%gpt runs",
    ]
    draw, refused, faults = random.Random(0), 0, []
    InteractiveShell.clear_instance()
    try:
        ip = cells.shell()
        corrupt.build(ip)
        disk = Disk(tmp_path, monkeypatch)
        for error in (errno.ENOSPC, errno.EROFS, errno.EACCES):
            for source in sources:
                disk.error, disk.left = error, draw.choice([0, 0, 1, 2, 3, 5])
                done = cells.run(ip, source)
                disk.error = None
                refused += done.error is not None
                if done.fault or (
                    done.error and not any(text in str(done.error) for text in (os.strerror(error), "has finished"))
                ):
                    faults.append(f"{source.splitlines()[0]} {errno.errorcode[error]}: {done.error!r}")
                if source.startswith("%gpt search") and done.error:
                    faults.append(f"a search failed: {done.error}")
        assert not cells.run(ip, "%gpt search docs fox --map none").error  # it stands
    finally:
        InteractiveShell.clear_instance()
    assert faults == [] and refused > 12


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
