"""The store on disk: where things live, what a name may be, and writes that are whole or absent.

Everything is under `.jupyter_gpt/` beside the notebook, or where JUPYTER_GPT_HOME says; what was pulled is in a cache
of the user (JUPYTER_GPT_CACHE moves it), once for every notebook. Every write goes to a temporary
name first and is renamed; what is being written holds a lock of its name, so another kernel can tell a run that lives
from one whose process is gone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_gpt.errors import GPTError

if TYPE_CHECKING:
    from filelock import FileLock

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LARGEST = 1 << 53  # of a number in a file: whole numbers are exact in a float up to here
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of a write: no space, no quota, read-only


def home() -> Path:
    """The folder of models, runs, rankings and indexes; not created by asking."""
    return Path(os.environ.get("JUPYTER_GPT_HOME") or ".jupyter_gpt").absolute()


def cache() -> Path:
    """The folder of what was pulled, the same from every notebook of this user; not created by asking."""
    import platformdirs

    given = os.environ.get("JUPYTER_GPT_CACHE")
    return Path(given or platformdirs.user_cache_dir("jupyter_gpt", appauthor=False)).absolute()


def check_name(name: str) -> str:
    """`name` itself, if it may name something made here.

    Raises GPTError for anything that is not `[A-Za-z0-9][A-Za-z0-9._-]*` of at most 64 characters, paths above all.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise GPTError(
            f"{name!r} cannot be a name: letters, digits, '.', '_' and '-', "
            "starting with a letter or digit, at most 64 characters"
        )
    return name


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Raises GPTError, one line, where `what` cannot be written because the disk is full or the store may not be
    changed.
    """
    try:
        yield
    except Exception as error:
        if not (is_full(error) or (isinstance(error, PermissionError) and is_ours(error.filename))):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        place = getattr(error, "filename", None) or home()
        raise GPTError(
            f"{what} could not be written ({reason}) at {place}: make room there, or let "
            "JUPYTER_GPT_HOME name another folder; what was there before is as it was"
        ) from error


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk takes no more; safetensors tells it in an error of its own."""
    if type(error).__name__ == "SafetensorError":
        return any(f"os error {number})" in str(error) for number in FULL)
    return isinstance(error, OSError) and error.errno in FULL


def is_ours(path: object) -> bool:
    """Whether a path lies in the store."""
    return isinstance(path, str | os.PathLike) and Path(path).absolute().is_relative_to(home())


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """The same of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # what a full disk cut short takes up room too


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, **kinds: object) -> dict:
    """The object in a JSON file; an empty one when there is no such file. `kinds` are the types of its fields by name.

    Raises ValueError, and nothing else, for a file that is damaged: that cannot be read, is no object, or has a field
    of another type.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, dict):
        raise ValueError(f"it holds {type(found).__name__}, not an object")
    check_kinds(found, **kinds)
    return found


def check_kinds(found: dict, **kinds: object) -> None:
    """Raises ValueError where a field of `found` is there and not of its type, or is a number beyond any use."""
    for name, kind in kinds.items():
        value = found.get(name)
        if name in found and not (isinstance(value, kind) and (kind is bool or is_usable(value))):
            raise ValueError(f"{name} is {value!r:.40}")


def is_usable(value: object) -> bool:
    """Whether a value is no number, or one of a size that can be counted with."""
    return not isinstance(value, int | float) or (not isinstance(value, bool) and not abs(value) > LARGEST)


def replace_folder(new: Path, target: Path) -> None:
    """Put the whole folder `new` in the place of `target`; the old one goes only when the new one stands."""
    parked = target.with_name(f".old-{target.name}")
    for attempt in range(3):
        if target.exists():
            shutil.rmtree(parked, ignore_errors=True)
            os.replace(target, parked)
        try:
            os.replace(new, target)
            break
        except OSError:
            if attempt == 2 or not target.exists():  # else another kernel brought the old one back, between the two
                bring_back(target)
                raise
    shutil.rmtree(parked, ignore_errors=True)


def bring_back(folder: Path) -> Path:
    """`folder`; if a kill between the two renames of `replace_folder` left it parked, it stands in its place again."""
    parked = folder.with_name(f".old-{folder.name}")
    if parked.exists() and not folder.exists():
        with suppress(OSError):  # a read-only store, or another kernel was faster
            os.replace(parked, folder)
    return folder


def bring_all_back(root: Path) -> None:
    """The same for every folder in `root`."""
    for parked in root.glob(".old-*"):
        if NAME.fullmatch(name := parked.name.removeprefix(".old-")):
            bring_back(root / name)


def sweep(folder: Path) -> None:
    """Remove what processes that are gone left half-written in `folder`: what is hidden and ends with their number.

    What is parked (`.old-NAME`) or made anew (`.new-NAME`) may end with a number of its own, and stays.
    """
    import psutil

    for path in folder.glob(".*"):
        process = path.name.rpartition(".")[2]
        if not path.name.startswith((".old-", ".new-")) and process.isdigit() and not psutil.pid_exists(int(process)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


# A lock is held by the operating system for this process and let go of when it dies, however it dies; neither clocks
# nor
# numbers of processes come into it. It belongs to a name, not to a folder: folders are parked and replaced. Its file
# stays.
PATIENCE = 0.3  # seconds: whoever looks whether a lock is held has it for a moment
_held: dict[Path, FileLock] = {}
_locking = threading.Lock()


def lock_file(folder: Path) -> Path:
    return folder.parent.parent / "locks" / f"{folder.parent.name}.{folder.name}.lock"


def lock(folder: Path, what: str) -> bool:
    """Hold the name of `folder`, which need not exist; False when this process held it before.

    `what` says in the error what the other process is doing. Raises GPTError when another living process holds it.
    """
    from filelock import FileLock, Timeout

    path = lock_file(folder)
    with _locking:
        if path in _held:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path, timeout=PATIENCE, poll_interval=0.02, thread_local=False)
        try:
            held.acquire()
        except Timeout:
            pid = locked_by(path)
            raise GPTError(
                f"{what} by another process{f' (pid {pid})' if pid else ''}: wait for it, or stop it there"
            ) from None
        try:
            path.with_suffix(".pid").write_text(str(os.getpid()), encoding="utf-8")
        except BaseException:
            held.release()
            raise
        _held[path] = held
    return True


def unlock(folder: Path) -> None:
    path = lock_file(folder)
    with _locking:
        held = _held.pop(path, None)
        if held is not None:
            path.with_suffix(".pid").unlink(missing_ok=True)
            held.release()


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """As `lock`; what was locked here is unlocked again if the block fails, and stays so for `unlock` if it does
    not.
    """
    new = lock(folder, what)
    try:
        yield
    except BaseException:
        if new:
            unlock(folder)
        raise


def lock_holder(folder: Path) -> int | None:
    """The pid of the living process that holds the name of `folder`, this one perhaps, or None."""
    from filelock import FileLock, Timeout

    path = lock_file(folder)
    with _locking:
        if path in _held:
            return os.getpid()
        if (pid := locked_by(path)) is None:
            return None
        try:
            with FileLock(path, timeout=PATIENCE, poll_interval=0.02, thread_local=False):
                path.with_suffix(".pid").unlink(missing_ok=True)  # of one that died
        except Timeout:
            return pid
        except OSError:  # a store that may only be read: nobody writes in it from here
            return None
    return None


def locked_by(path: Path) -> int | None:
    """The pid beside a lock file: whose it is, or was."""
    try:
        return int(path.with_suffix(".pid").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
