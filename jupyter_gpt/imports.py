"""The imports that the first cell of a kernel waits for: torch and transformers, seconds of them."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

AHEAD = ("torch", "jupyter_gpt.session", "sympy")  # in this order
PAUSE = 0.2  # seconds without a cell before one is imported
SETTING = "OMP_NUM_THREADS"  # torch reads it when it is imported

_lock = threading.Lock()
_importing = 0  # how many threads are in `without_garbage_collection`
_threads: list[tuple[str | None, int]] = []  # SETTING before torch was imported ahead, and its threads after


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


@contextmanager
def without_iri_grammar() -> Iterator[None]:
    """`jsonschema` imported without the grammar of IRIs that another package builds meanwhile, for 1.4 s: it is built
    when somebody checks that format.
    """
    name, stand_in = "rfc3987_syntax", None
    if name not in sys.modules and importlib.util.find_spec(name):
        stand_in = ModuleType(name)
        stand_in.is_valid_syntax = lambda *given: importlib.import_module(name).is_valid_syntax(*given)
        sys.modules[name] = stand_in
    try:
        yield
    finally:
        if stand_in is not None:
            del sys.modules[name]


def uninterrupted(name: str) -> ModuleType:
    """A module, whose import an interrupt of the main thread waits for: a C extension whose first import is cut off
    cannot be imported again in the same process."""
    if name in sys.modules or threading.current_thread() is not threading.main_thread():
        return importlib.import_module(name)
    came: list[tuple] = []
    before = signal.signal(signal.SIGINT, lambda *given: came.append(given))
    try:
        return importlib.import_module(name)
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


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
                setting, mine = os.environ.get(SETTING), name not in sys.modules
                if name == "torch":
                    load_shared_library()
                with without_garbage_collection():
                    module = importlib.import_module(name)
                if name == "torch" and mine:
                    _threads.append((setting, module.get_num_threads()))

    thread = threading.Thread(target=work, name="jupyter_gpt-imports", daemon=True)
    thread.start()
    return thread


def load_shared_library() -> None:
    """Load the largest library of torch's CPU build without the interpreter's lock: `import torch` would hold that for
    0.2 s, and a cell would wait. Where the library cannot be loaded, the import says so.
    """
    import ctypes

    found = importlib.util.find_spec("torch") if sys.platform == "linux" else None
    folder = Path(found.origin).parent / "lib" if found and found.origin else None
    if folder is None or (folder / "libtorch_cuda.so").exists():
        return
    load = ctypes.CDLL(None).dlopen  # called as a foreign function, which releases the lock; CDLL() itself does not
    load.restype, load.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    load(bytes(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL)  # first, as torch does
    load(bytes(folder / "libtorch_cpu.so"), os.RTLD_NOW)


def heed_setting() -> None:
    """Where torch was imported ahead and OMP_NUM_THREADS has been set since, give torch that many threads: a notebook
    may set it in the cell after `%load_ext`.
    """
    while _threads:
        before, threads = _threads.pop()
        now = os.environ.get(SETTING, "")
        if now != before and now.isdigit() and int(now) > 0:
            import torch

            if torch.get_num_threads() == threads:  # nobody has set them
                torch.set_num_threads(int(now))
