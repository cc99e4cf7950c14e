"""The store on disk: where things live, what a name may be, and writes that are whole or absent.

Everything is under `.jupyter_gpt/` beside the notebook, or where JUPYTER_GPT_HOME says; what was pulled is in a cache of
the user (JUPYTER_GPT_CACHE moves it), once for every notebook. Every write goes to a temporary
name first and is renamed; a run that is being written holds a lock file with its process, so another kernel can tell a
run that lives from one whose process is gone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_gpt.errors import GPTError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
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
    """Raises GPTError, one line, where `what` cannot be written because the disk is full or the store may not be changed."""
    try:
        yield
    except Exception as error:
        if not (is_full(error) or (isinstance(error, PermissionError) and is_ours(error.filename))):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise GPTError(f"{what} could not be written ({reason}): make room under {home()}") from error


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # what a full disk cut short takes up room too


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> dict:
    """The object in a JSON file; an empty one when there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def replace_folder(new: Path, target: Path) -> None:
    """Put the whole folder `new` in the place of `target`; the old one goes only when the new one stands."""
    parked = target.with_name(f".old-{target.name}")
    if target.exists():
        shutil.rmtree(parked, ignore_errors=True)
        os.replace(target, parked)
    os.replace(new, target)
    shutil.rmtree(parked, ignore_errors=True)


def lock(folder: Path) -> None:
    """Mark `folder` as being written by this process.

    Raises GPTError when another living process holds it.
    """
    holder = lock_holder(folder)
    if holder not in (None, os.getpid()):
        raise GPTError(f"{folder.name} is being trained by another process (pid {holder}): stop it there, or wait")
    import psutil

    write_json(folder / "lock", {"pid": os.getpid(), "started": psutil.Process().create_time()})


def unlock(folder: Path) -> None:
    (folder / "lock").unlink(missing_ok=True)


def lock_holder(folder: Path) -> int | None:
    """The pid of the living process that writes `folder`, or None. A pid used anew by another program is not it."""
    held = read_json(folder / "lock")
    if not held:
        return None
    import psutil

    try:
        process = psutil.Process(held["pid"])
        same = abs(process.create_time() - held["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return held["pid"] if same else None
    except psutil.NoSuchProcess:
        return None
