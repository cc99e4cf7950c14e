"""Sources: where documents come from, by the name a user writes in a cell.

    stories, sums            generated, endless, seeded
    python                   the standard library's source on this machine
    ./books/*.txt            files, globs, folders: .txt and .md (a document each), .jsonl, .parquet (a row)
    hf:owner/name[/config][@split][:column]   a dataset of the Hugging Face hub, streamed (the extra `data`)
    $docs                    a variable of the notebook: a list, a Series, a DataFrame, a text

`check` finds what can be found before any work starts; `read` gives the documents, again at each call.
"""

from __future__ import annotations

import glob
import importlib
import os
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_gpt.data import arrow, files, hub
from jupyter_gpt.data.files import text_of
from jupyter_gpt.data.long_text import LongText
from jupyter_gpt.errors import GPTError, nearest

ENDLESS = {"stories", "sums"}
EMBEDDED = (*sorted(ENDLESS), "python")

# Tables and tests rather than prose of programs: left out of `python`.
NOT_SOURCE = {"test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data", "turtledemo", "ensurepip"}
NOT_SOURCE |= {"site-packages", "dist-packages", "__pycache__"}


def read(source: str, variables: Mapping | None = None, seed: int = 0) -> Iterator[str | LongText]:
    """The documents of `source`, from the start at each call; endless for those in ENDLESS.

    The seed decides what is generated and the order of files; rows within a file keep theirs. Raises GPTError, as
    `check` does, when a source turns out to be unreadable.
    """
    if source in ENDLESS:
        return importlib.import_module(f"jupyter_gpt.data.{source}").documents(seed)
    if source == "python":
        return _python(seed)
    if source.startswith("$"):
        return _variable(source, variables)
    if source.startswith("hf:"):
        return hub.read(source)
    return files.read(_shuffled(_files(source), seed))


def check(source: str, variables: Mapping | None = None) -> None:
    """Raises GPTError if `source` is unknown, missing, empty or, as far as its first bytes show, not text."""
    if source == "python" and not _stdlib():
        raise GPTError("this Python came without the source of its standard library")
    if source.startswith(("$", "hf:")):
        if next(read(source, variables), None) is None:
            raise GPTError(f"{source} is empty")
    elif source not in EMBEDDED:
        files.check(_files(source))


def size(source: str) -> int | None:
    """Bytes of text in `source`, without reading it; None where that is unknown."""
    if source in ENDLESS or source.startswith(("$", "hf:")):
        return None
    return sum(map(files.size, _stdlib() if source == "python" else _files(source)))


def _shuffled(paths: list[Path], seed: int) -> list[Path]:
    # A run that reads only part of a source should not read only its first letters of the alphabet.
    random.Random(seed).shuffle(paths)
    return paths


def _stdlib() -> list[Path]:
    import sysconfig

    paths = []
    for folder, inner, names in os.walk(sysconfig.get_path("stdlib")):
        inner[:] = [name for name in inner if name not in NOT_SOURCE]  # not even walked
        paths += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(paths)


def _python(seed: int) -> Iterator[str]:
    import tokenize

    for path in _shuffled(_stdlib(), seed):
        try:
            with tokenize.open(path) as file:  # heeds the coding line
                yield file.read()
        except (SyntaxError, UnicodeDecodeError, OSError):
            continue  # a deliberately broken or unreadable file of the library is no loss


def _files(source: str) -> list[Path]:
    return paths(source, files.SUFFIXES, files.SUPPORTED, EMBEDDED)


def paths(source: str, suffixes: Sequence[str], supported: str, embedded: Sequence[str] = ()) -> list[Path]:
    """Those of `files_of(source)` with one of these suffixes. GPTError when there are none."""
    candidates = files_of(source, embedded)
    usable = [path for path in candidates if path.suffix.lower() in suffixes]
    if not usable and Path(source).expanduser() in candidates:
        raise GPTError(f"{source} is not a file of text: {supported}")
    if not usable:
        raise GPTError(f"{source} has no file to read ({len(candidates)} of other kinds): {supported}")
    return usable


def files_of(source: str, embedded: Sequence[str] = ()) -> list[Path]:
    """The files that a path, a folder or a glob matches, sorted; none that is hidden. GPTError when nothing matches.

    embedded: the names of built-in sources, suggested for a misspelled one.
    """
    path = Path(source).expanduser()
    if os.path.isdir(path):  # noqa: PTH112 (of a name that is too long Path.is_dir raises)
        found = []
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(folder, name) for name in names if not name.startswith(".")]
        return sorted(filter(_is_file, found))
    matched = glob.glob(str(path), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    matches = [path] if _is_file(path) else sorted(filter(_is_file, map(Path, matched)))
    if not matches:
        raise GPTError(missing(source, embedded))
    return matches


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that may not be read, or of a name that is too long
        return False


def missing(source: str, embedded: Sequence[str] = ()) -> str:
    """The error message for a file that does not exist, with the name it may have been meant to be."""
    path = Path(source).expanduser()
    if embedded and not re.search(r"[/\\*?~.\[]", source):
        return f"there is no source {source!r}{nearest(source, embedded)}"
    if glob.has_magic(source):
        return f"no file matches {source} (looked from {Path.cwd()})"
    beside = [p.name for p in path.parent.iterdir()] if os.path.isdir(path.parent) else []  # noqa: PTH112
    if not beside:
        return f"there is no file {source}: the folder {path.parent} is missing or empty"
    guess = nearest(path.name, beside)
    return f"there is no file {source}{guess if 'did you mean' in guess else f' (looked from {Path.cwd()})'}"


def value_of(source: str, variables: Mapping | None, once: bool = False) -> object:
    """The variable `$name`. GPTError when there is none and, unless `once`, for an iterator."""
    name = source[1:]
    if variables is None or name not in variables:
        known = [f"${key}" for key in variables or {} if not key.startswith("_")]
        raise GPTError(f"there is no variable {source} in this notebook{nearest(source, known)}")
    value = variables[name]
    if not once and isinstance(value, Iterable) and iter(value) is value:
        raise GPTError(
            f"{source} can be read only once (it is a {type(value).__name__}) and training reads it more often: "
            f"write {name} = list({name}) first"
        )
    return value


def is_table(value: object) -> bool:
    """Whether a value is a DataFrame; pandas is not imported to find out."""
    return hasattr(value, "iloc") and hasattr(value, "columns")


def rows_of(value: Any, name: str, expected: str) -> Iterable:
    """The rows of a DataFrame, a dataset or a list. GPTError, with what is `expected`, for any other value."""
    if is_table(value):
        return [arrow.row_of_frame(row) for row in value.to_dict("records")]
    if hasattr(value, "features") and hasattr(value, "column_names"):
        return map(arrow.row, value)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise GPTError(f"{name} is a {type(value).__name__}: expected a DataFrame or {expected}")
    return value


def _variable(source: str, variables: Mapping | None) -> Iterator[str]:
    value: Any = value_of(source, variables)
    if isinstance(value, str):
        return iter([value])
    if is_table(value):
        value = value[_column(source, value)]
    if hasattr(value, "iloc"):  # a Series
        value = value[value.notna()]
    rows = rows_of(value, source, "a list of texts, a Series or a text")
    return (text_of(row, f"item {number} of {source}") for number, row in enumerate(rows))


def _column(source: str, frame) -> str:
    if "text" in frame.columns:
        return "text"
    texts = [c for c in frame.columns if frame[c].map(lambda cell: isinstance(cell, str)).any()]
    if len(texts) != 1:
        have = ", ".join(map(str, frame.columns))
        raise GPTError(f"{source} needs a column `text`, or a single column of strings; it has {have}")
    return texts[0]
