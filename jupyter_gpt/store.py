"""The store on disk: its folders, valid names, atomic writes and locks.

Everything is under `.jupyter_gpt/` beside the notebook (JUPYTER_GPT_HOME moves it); pulled models are in the user's
cache (JUPYTER_GPT_CACHE moves it), for all notebooks. Every write goes to a temporary name and is then renamed. A
process that writes holds the lock of the name, so that another kernel can tell a live run from a dead one.
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
from typing import TYPE_CHECKING, Any

from jupyter_gpt.errors import GPTError

if TYPE_CHECKING:
    from filelock import FileLock

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_NUMBER = 1 << 53  # in a file: integers are exact in a float up to here
MOST_VALUES = 100_000  # that the aliases of a YAML file may stand for
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no space, no quota, read-only


def home() -> Path:
    """The folder of models, runs, rankings and indexes; it may not exist."""
    return Path(os.environ.get("JUPYTER_GPT_HOME") or ".jupyter_gpt").absolute()


def cache() -> Path:
    """The folder of pulled models, the same for all notebooks of this user; it may not exist."""
    import platformdirs

    folder = os.environ.get("JUPYTER_GPT_CACHE")
    return Path(folder or platformdirs.user_cache_dir("jupyter_gpt", appauthor=False)).absolute()


def settings() -> Path:
    """The folder of what this user has set, whatever folder the notebook is in; JUPYTER_GPT_CONFIG moves it."""
    import platformdirs

    return Path(os.environ.get("JUPYTER_GPT_CONFIG") or platformdirs.user_config_dir("jupyter_gpt", appauthor=False))


def check_name(name: str) -> str:
    """`name`. Raises GPTError unless it is `[A-Za-z0-9][A-Za-z0-9._-]*` of at most 64 characters, so never a path."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise GPTError(
            f"{name!r} cannot be a name: letters, digits, '.', '_' and '-', "
            "starting with a letter or digit, at most 64 characters"
        )
    return name


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Raises GPTError if `what` cannot be written because the disk is full or the store is read-only."""
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
    """Whether an error, perhaps one of safetensors' own, means that the disk is full."""
    if type(error).__name__ == "SafetensorError":
        return any(f"os error {number})" in str(error) for number in FULL)
    return isinstance(error, OSError) and error.errno in FULL


def is_ours(path: object) -> bool:
    """Whether a path is in the store."""
    return isinstance(path, str | os.PathLike) and Path(path).absolute().is_relative_to(home())


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{threading.get_ident()}.{os.getpid()}")  # threads may write at once
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # also on a full disk


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, **types: object) -> dict:
    """The object in a JSON file, {} if there is no file. Raises ValueError, and nothing else, for a damaged one: if it
    cannot be read, is not an object, or has a field that is not of the type in `types`.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(values, dict):
        raise ValueError(f"it holds {type(values).__name__}, not an object")
    check_types(values, **types)
    return values


def read_yaml(path: Path) -> Any:
    """The value in a YAML file. Raises ValueError, and nothing else, for one that cannot be read, or whose aliases
    multiply it."""
    import yaml

    sizes: dict[int, int] = {}

    def size(node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MOST_VALUES  # of a part of itself
            parts = node.value if isinstance(node.value, list) else []
            parts = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    try:
        text = path.read_text(encoding="utf-8")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        node = loader.get_single_node()
        if "*" in text and node is not None and size(node) > max(len(text), MOST_VALUES):
            raise ValueError("its aliases multiply it")
        return None if node is None else loader.construct_document(node)
    except (OSError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(str(error)) from error


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """What changes with a file: its time, its size, and which file it is; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def check_types(values: dict, **types: object) -> None:
    """Raises ValueError if a field is not of its type, or is a number of absurd size."""
    for name, kind in types.items():
        value = values.get(name)
        if name in values and not (isinstance(value, kind) and (kind is bool or is_usable(value))):
            raise ValueError(f"{name} is {value!r:.40}")


def is_usable(value: object) -> bool:
    """Whether a value is not a number, or one of a reasonable size."""
    return not isinstance(value, int | float) or (not isinstance(value, bool) and not abs(value) > MAX_NUMBER)


def replace_folder(new: Path, target: Path) -> None:
    """Replace the folder `target` by `new`; the old one is removed once the new one is in place."""
    parked = target.with_name(f".old-{target.name}")
    for attempt in range(3):
        if target.exists():
            shutil.rmtree(parked, ignore_errors=True)
            os.replace(target, parked)
        try:
            os.replace(new, target)
            break
        except OSError:
            if attempt == 2 or not target.exists():  # else another kernel restored the old one in between
                restore(target)
                raise
    shutil.rmtree(parked, ignore_errors=True)


def restore(folder: Path) -> Path:
    """`folder`, restored if a kill between the two renames of `replace_folder` left it parked."""
    parked = folder.with_name(f".old-{folder.name}")
    if parked.exists() and not folder.exists():
        with suppress(OSError):  # a read-only store, or another kernel was faster
            os.replace(parked, folder)
    return folder


def restore_all(root: Path) -> None:
    """Restore every folder in `root`."""
    for parked in root.glob(".old-*"):
        if NAME.fullmatch(name := parked.name.removeprefix(".old-")):
            restore(root / name)


def sweep(folder: Path) -> None:
    """Remove what dead processes left half-written in `folder`: hidden names that end with their pid, except parked
    (`.old-NAME`) and new (`.new-NAME`) folders, whose names may end with a number.
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


# The operating system releases a lock when its process dies. It belongs to a name, not to a folder: folders are parked
# and replaced. Its file stays.
PATIENCE = 0.3  # seconds: `lock_holder` holds a lock for a moment
_locks: dict[Path, FileLock] = {}
_locking = threading.Lock()


def lock_file(folder: Path) -> Path:
    return folder.parent.parent / "locks" / f"{folder.parent.name}.{folder.name}.lock"


def lock(folder: Path, what: str) -> bool:
    """Lock the name of `folder`; False if this process holds it already. Raises GPTError if another live process does;
    `what` says what that is doing.
    """
    from filelock import FileLock, Timeout

    path = lock_file(folder)
    with _locking:
        if path in _locks:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        new = FileLock(path, timeout=PATIENCE, poll_interval=0.02, thread_local=False)
        try:
            new.acquire()
        except Timeout:
            pid = locked_by(path)
            raise GPTError(
                f"{what} by another process{f' (pid {pid})' if pid else ''}: wait for it, or stop it there"
            ) from None
        try:
            path.with_suffix(".pid").write_text(str(os.getpid()), encoding="utf-8")
        except BaseException:
            new.release()
            raise
        _locks[path] = new
    return True


def unlock(folder: Path) -> None:
    path = lock_file(folder)
    with _locking:
        lock = _locks.pop(path, None)
        if lock is not None:
            path.with_suffix(".pid").unlink(missing_ok=True)
            lock.release()


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """As `lock`; unlocked again only if the block fails."""
    new = lock(folder, what)
    try:
        yield
    except BaseException:
        if new:
            unlock(folder)
        raise


def lock_holder(folder: Path) -> int | None:
    """The pid of the live process, perhaps this one, that holds the lock of `folder`'s name, or None."""
    from filelock import FileLock, Timeout

    path = lock_file(folder)
    with _locking:
        if path in _locks:
            return os.getpid()
        if (pid := locked_by(path)) is None:
            return None
        try:
            with FileLock(path, timeout=PATIENCE, poll_interval=0.02, thread_local=False):
                path.with_suffix(".pid").unlink(missing_ok=True)  # of a dead process
        except Timeout:
            return pid
        except OSError:  # a read-only store
            return None
    return None


def locked_by(path: Path) -> int | None:
    """The pid of the process that holds or held a lock."""
    try:
        return int(path.with_suffix(".pid").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
