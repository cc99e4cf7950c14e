"""The imports that the first cell of a kernel waits for: torch and transformers, seconds of them."""

from __future__ import annotations

import gc
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

AHEAD = ("torch", "jupyter_gpt.session", "sympy")  # in this order
PAUSE = 0.2  # seconds without a cell before one is imported
SETTING = "OMP_NUM_THREADS"  # torch reads it when it is imported

_lock = threading.Lock()
_importing = 0  # how many threads are in `without_garbage_collection`
_ahead: dict = {}  # of torch imported ahead: SETTING as it was then


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Python's garbage collector off while libraries are imported: they make half a million objects that stay, and it
    would look through them 600 times, for 0.6 of 4 seconds.
    """
    global _importing
    with _lock:
        on = gc.isenabled() or _importing > 0
        _importing += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _importing -= 1
            if on and not _importing:
                gc.enable()


def import_ahead(idle: Callable[[], bool]) -> threading.Thread:
    """Import AHEAD on a thread, each when no cell runs, while a person reads or types; a cell that needs one waits for
    what is left.

    These cannot wait for anything that a cell imports meanwhile and that waits for them: Python would give one of
    the two half a module. Parts of transformers could, for they import one another. What cannot be imported is left to
    the cell that needs it.
    """

    def work() -> None:
        with suppress(ImportError):
            for name in AHEAD:
                time.sleep(PAUSE)
                while not idle():
                    time.sleep(PAUSE)
                with without_garbage_collection():
                    importlib.import_module(name)

    _ahead[SETTING] = os.environ.get(SETTING)
    thread = threading.Thread(target=work, name="jupyter_gpt-imports", daemon=True)
    thread.start()
    return thread


def heed_setting() -> None:
    """Where torch was imported ahead and OMP_NUM_THREADS has been set since, give torch that many threads: a notebook
    may set it in the cell after `%load_ext`.
    """
    if not _ahead:
        return
    before, now = _ahead.pop(SETTING), os.environ.get(SETTING)
    if now != before and now and now.isdigit() and int(now) > 0:
        import torch

        torch.set_num_threads(int(now))
