"""From what a user writes to the documents meant: files, globs, folders, `$variables`, and addresses typed out.

A link inside a document is never followed.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jupyter_gpt.data.files import text_of
from jupyter_gpt.data.sources import files_of, missing, value_of
from jupyter_gpt.errors import GPTError
from jupyter_gpt.retrieval.read import LARGEST, SUFFIXES, Document, Unreadable, parse, plain, read

TIMEOUT = 15.0  # seconds a server may take
TYPES = {"text/html": ".html", "application/pdf": ".pdf", "text/markdown": ".md", "text/csv": ".csv"}
SUPPORTED = ", ".join(SUFFIXES)


class Item(NamedTuple):
    """One document to come: a file, a text of the notebook, or an address."""

    source: str
    path: Path | None = None
    text: str | None = None

    def load(self) -> Document:
        """Its text. Raises Unreadable."""
        if self.path is not None:
            return read(self.path)
        if self.text is not None:
            if not self.text.strip():
                raise Unreadable("is empty")
            return plain(self.text)
        return parse(*fetch(self.source))


def as_written(sources: object, variables: Mapping | None = None) -> tuple[list[str], Mapping | None]:
    """Sources as a cell would have them, and the variables; texts among them become the variable `$texts`.

    A string is a source where it is `$name`, an address, or names a file, a folder or a glob that is there; else it is
    a text. Raises GPTError for one that can only be meant as a path, and for what is neither.
    """
    if sources is None:
        return [], variables
    if isinstance(sources, str | Path):
        sources = [sources]
    if isinstance(sources, Mapping) or hasattr(sources, "iloc"):
        return ["$texts"], {**(variables or {}), "texts": sources}
    names: list[str] = []
    texts: list[str] = []
    for number, each in enumerate(as_list("sources", sources)):
        if isinstance(each, Path):
            names.append(str(each))
            continue
        each = text_of(each, f"item {number} of the sources")
        (names if is_source(each) else texts).append(each)
    if not texts:
        return names, variables
    return [*names, "$texts"], {**(variables or {}), "texts": texts}


def is_source(text: str) -> bool:
    """Whether a string names something to read rather than being a text. Raises GPTError for a path where nothing
    is.
    """
    if re.fullmatch(r"\$\w+", text) or text.startswith(("http://", "https://")):
        return True
    if "\n" in text or not text.strip():
        return False
    path = Path(text).expanduser()
    try:
        if path.exists() or (glob.has_magic(text) and any(glob.iglob(str(path), recursive=True))):  # noqa: PTH207
            return True
    except OSError:  # too long to be a path
        return False
    if not re.search(r"\s", text.strip()) or path.suffix.lower() in SUFFIXES or re.match(r"(\.{0,2}|~)[/\\]", text):
        raise GPTError(f"{missing(text)}; a text is given in a mapping, {{name: text}}")
    return False


def find_documents(
    sources: Sequence[str], variables: Mapping | None = None
) -> tuple[list[Item], list[tuple[str, str]]]:
    """The documents of `sources`, each once, in order; and what is skipped in folders, as (name, reason).

    Raises GPTError for a source that is not there, and for an empty folder.
    """
    items_by_name: dict[str, Item] = {}
    skipped: dict[str, str] = {}
    for source in sources:
        if source.startswith("$"):
            items = of_variable(source, variables or {})
        elif source.startswith(("http://", "https://")):
            items = [Item(source)]
        else:
            paths, others = files(source)
            items = [Item(named(path), path) for path in paths]
            skipped |= {
                named(path): f"{path.suffix or 'no suffix'} is not a kind of text that is read" for path in others
            }
        items_by_name |= {item.source: item for item in items if item.source not in items_by_name}
    return list(items_by_name.values()), [(name, why) for name, why in skipped.items() if name not in items_by_name]


def named(path: Path) -> str:
    """How a file is called in the index: relative to the notebook's folder where it is inside, with forward slashes."""
    whole, here = path.absolute(), Path.cwd()
    return (whole.relative_to(here) if whole.is_relative_to(here) else whole).as_posix()


def files(source: str) -> tuple[list[Path], list[Path]]:
    """The files a path, a folder or a glob matches, sorted; then those of a folder that are of no known kind."""
    paths = files_of(source)
    if not Path(source).expanduser().is_dir():
        return paths, []
    supported = [path for path in paths if path.suffix.lower() in SUFFIXES]
    if not supported:
        raise GPTError(f"the folder {source} has no file to index ({len(paths)} of other kinds): expected {SUPPORTED}")
    return supported, [path for path in paths if path not in supported]


def of_variable(source: str, variables: Mapping) -> list[Item]:
    """The documents of a variable: a text, a list of them, a mapping from name to text, a Series, a DataFrame."""
    value: Any = value_of(source, variables, once=True)
    if isinstance(value, str):
        return [Item(source, text=value)]
    if hasattr(value, "columns") and "text" in value.columns:
        value = value["text"]
    pairs = value.items() if isinstance(value, Mapping) or hasattr(value, "iloc") else enumerate(as_list(source, value))
    items = [Item(f"{source}[{key}]", text=text) for key, text in pairs if isinstance(text, str)]
    if not items:
        raise GPTError(
            f"{source} has no text: expected a list of texts, a mapping from name to text, or a column `text`"
        )
    return items


def as_list(source: str, value: object) -> list:
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise GPTError(f"{source} is a {type(value).__name__}: expected a text, a list of texts or a mapping to texts")
    return list(value)


def fetch(address: str) -> tuple[bytes, str]:
    """The bytes at an address and the suffix that says what they are. Raises Unreadable."""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(address, headers={"User-Agent": "jupyter_gpt"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            kind = answer.headers.get_content_type()
            data = answer.read(LARGEST + 1)
    except urllib.error.HTTPError as error:
        raise Unreadable(f"was not given: {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be reached: {getattr(error, 'reason', error)}") from error
    if len(data) > LARGEST:
        raise Unreadable(f"is larger than {LARGEST // 10**6} MB")
    return data, TYPES.get(kind) or Path(urlsplit(address).path).suffix.lower()
