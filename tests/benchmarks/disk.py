"""A disk that is full, read-only or forbidden from the n-th write on: one line that names it, and what was there stays.

    python tests/benchmarks/disk.py [--cells 100] [--seed 0]

Printed: how many cells ran and were refused, and each that was not told in one line or lost what it only reads.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import random
import sys
from pathlib import Path
from unittest import mock

import cells
import corrupt

CHANGED = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ERRORS = (errno.ENOSPC, errno.EROFS, errno.EACCES)
SOURCES = [
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


class Disk:
    """Refuses every change under `root` from the `left`-th on, where `error` is set. Entered, it stands before the
    calls that change files."""

    def __init__(self, root: Path):
        self.root, self.error, self.left = root, None, 0

    def __enter__(self) -> Disk:
        self.patches = contextlib.ExitStack()
        for module, name in ((io, "open"), (builtins, "open"), (os, "replace"), (os, "mkdir"), (os, "open")):
            self.patches.enter_context(mock.patch.object(module, name, self.guarded(name, getattr(module, name))))
        return self

    def __exit__(self, *_) -> None:
        self.patches.close()

    def guarded(self, name: str, real):
        def call(path, *rest, **more):
            mode = rest[0] if rest else more.get("mode", more.get("flags", "r"))
            opened = mode & CHANGED if isinstance(mode, int) else set("wax+") & set(str(mode))
            changes = self.error and (name in ("replace", "mkdir") or opened) and not isinstance(path, int)
            if changes and Path(os.fsdecode(path)).is_relative_to(self.root):
                self.left -= 1
                if self.left < 0:
                    raise OSError(self.error, os.strerror(self.error), os.fsdecode(path))
            return real(path, *rest, **more)

        return call


def attack(ip, root: Path, wanted: int, seed: int) -> tuple[int, list[str]]:
    """Run `wanted` cells on the store under `root`: how many were refused, and the faults."""
    draw, refused, faults = random.Random(seed), 0, []
    todo = [(error, source) for error in ERRORS for source in SOURCES]
    with Disk(root) as disk:
        for number in range(wanted):
            error, source = todo[number % len(todo)]
            disk.error, disk.left = error, draw.choice([0, 0, 1, 2, 3, 5])
            done = cells.run(ip, source)
            disk.error = None
            refused += done.error is not None
            named = any(text in str(done.error) for text in (os.strerror(error), "has finished"))
            if done.fault or (done.error and not named):
                faults.append(f"{source.splitlines()[0]} {errno.errorcode[error]}: {done.error!r}")
            if source.startswith("%gpt search") and done.error:
                faults.append(f"a search failed: {done.error}")
        if cells.run(ip, "%gpt search docs fox --map none").error:
            faults.append("the index does not stand")
    return refused, faults


def main() -> None:
    given = cells.options(__doc__, cells=100)
    with cells.store() as (ip, folder):
        os.chdir(folder)
        refused, faults = attack(ip, folder, given.cells, given.seed)
        os.chdir("/")
    print(f"{given.cells} cells, {refused} refused, {len(faults)} faults (seed {given.seed})", *faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
