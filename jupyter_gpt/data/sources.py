"""Sources: where documents come from, by the name a user writes in a cell.

    stories, sums            generated, endless, seeded
    python                   the standard library's source on this machine
    ./books/*.txt            files, globs, folders: .txt and .md (a document each), .jsonl, .parquet (a row)
    hf:owner/name[:column]   a dataset of the Hugging Face hub, streamed (the extra `data`)
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

from jupyter_gpt.data import files
from jupyter_gpt.data.files import text_of
from jupyter_gpt.errors import GPTError, nearest

ENDLESS = {"stories", "sums"}
EMBEDDED = (*sorted(ENDLESS), "python")

# Tables and tests rather than prose of programs: left out of `python`.
NOT_SOURCE = {"test", "tests", "idlelib", "lib2to3", "encodings", "pydoc_data", "turtledemo", "ensurepip"}
NOT_SOURCE |= {"site-packages", "dist-packages", "__pycache__"}


def read(source: str, variables: Mapping | None = None, seed: int = 0) -> Iterator[str]:
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
        from jupyter_gpt.data import hub

        return hub.read(source)
    return files.read(_shuffled(_files(source), seed))


def check(source: str, variables: Mapping | None = None) -> None:
    """Raises GPTError if `source` is unknown, missing, empty or, as far as a quick look tells, not text."""
    if source in ENDLESS:
        return
    if source == "python":
        if not _stdlib():
            raise GPTError("this Python came without the source of its standard library")
    elif source.startswith("$"):
        if next(_variable(source, variables), None) is None:
            raise GPTError(f"{source} is empty")
    elif source.startswith("hf:"):
        from jupyter_gpt.data import hub

        hub.check(source)
    else:
        files.check(_files(source))


def size(source: str) -> int | None:
    """Bytes of text in `source` as far as can be told without reading it; None when it cannot."""
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


def paths(source: str, suffixes: Sequence[str], supported: str, embedded: Sequence[str]) -> list[Path]:
    """The files a path, a folder or a glob stands for, sorted. GPTError when there are none with these suffixes."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise GPTError(f"{source} is not a file of text: {supported}")
        return [path]
    if path.is_dir():
        matches = [p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path))]
    else:
        matched = glob.glob(str(path), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        matches = [Path(p) for p in matched if Path(p).is_file()]
    usable = sorted(p for p in matches if p.suffix.lower() in suffixes)
    if usable:
        return usable
    if matches:
        raise GPTError(f"{source} matches {len(matches)} files but none to read: {supported}")
    if path.is_dir():
        raise GPTError(f"the folder {source} has no file to read: {supported}")
    raise GPTError(_missing(source, path, embedded))


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _missing(source: str, path: Path, embedded: Sequence[str]) -> str:
    if not re.search(r"[/\\*?~.\[]", source):
        return f"there is no source {source!r}{nearest(source, embedded)}"
    if glob.has_magic(source):
        return f"no file matches {source} (looked from {Path.cwd()})"
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    if not beside:
        return f"there is no file {source}: the folder {path.parent} is missing or empty"
    guess = nearest(path.name, beside)
    return f"there is no file {source}{guess if 'did you mean' in guess else f' (looked from {Path.cwd()})'}"


def value_of(source: str, variables: Mapping | None) -> object:
    """The variable `$name`. GPTError when there is none, and for one that can be read only once."""
    name = source[1:]
    if variables is None or name not in variables:
        known = [f"${key}" for key in variables or {} if not key.startswith("_")]
        raise GPTError(f"there is no variable {source} in this notebook{nearest(source, known)}")
    value = variables[name]
    if isinstance(value, Iterable) and iter(value) is value:
        raise GPTError(
            f"{source} can be read only once (it is a {type(value).__name__}), training reads it more often: "
            f"write {name} = list({name}) first"
        )
    return value


def _variable(source: str, variables: Mapping | None) -> Iterator[str]:
    value = value_of(source, variables)
    if isinstance(value, str):
        return iter([value])
    if hasattr(value, "iloc") and hasattr(value, "columns"):  # a DataFrame
        return _cells(source, value[_column(source, value)])
    if hasattr(value, "iloc"):  # a Series
        return _cells(source, value)
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        raise GPTError(
            f"{source} is a {type(value).__name__}; it may be a list of texts, a Series, a DataFrame, a text"
        )
    return _items(source, value)


def _column(source: str, frame) -> str:
    if "text" in frame.columns:
        return "text"
    texts = [c for c in frame.columns if frame[c].map(lambda cell: isinstance(cell, str)).any()]
    if len(texts) != 1:
        have = ", ".join(map(str, frame.columns))
        raise GPTError(f"{source} needs a column `text`, or a single column of strings; it has {have}")
    return texts[0]


def _cells(source: str, series) -> Iterator[str]:
    return _items(source, series[series.notna()])


def _items(source: str, values: Iterable) -> Iterator[str]:
    for number, value in enumerate(values):
        yield value if isinstance(value, str) else text_of(value, f"item {number} of {source}")
