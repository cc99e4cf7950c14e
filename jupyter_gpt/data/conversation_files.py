"""Rows from files of conversations: JSON lines, JSON, CSV, parquet, each with the place where it stands.

A place is what a person needs to find it: `mine.jsonl, line 37`. A file is read as UTF-8, a byte order mark dropped;
JSON lines under the name .json, and a JSON list under .jsonl, are read as what they are. In place of a row that cannot
be read stands its GPTError, so that whoever reads may skip it; where the rest cannot be read either, it is raised.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from jupyter_gpt.data.conversation_forms import form_of
from jupyter_gpt.data.files import convert, narrow, utf_16
from jupyter_gpt.errors import GPTError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")
SUPPORTED = "conversations are .jsonl, .json, .csv, .tsv, .parquet, or .txt and .md with turns `user:`, `assistant:`"
TURN = re.compile(r"^(system|user|assistant):[ \t]*", re.MULTILINE)
SEPARATOR = re.compile(r"-{3,}[ \t]*")

Row = tuple[str, object]  # where it stands, and what stands there, or the GPTError that says why it cannot be read


def rows(path: Path) -> Iterator[Row]:
    """The rows of a file, in order. GPTError names the line of what cannot be read."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return parquet(path)
    content = decoded(path)
    if suffix in (".csv", ".tsv"):
        return table(path, content)
    if suffix in (".txt", ".md"):
        return ((where, turns) for where, turns in body(content, str(path)))
    return json_rows(path, content)


def decoded(path: Path) -> str:
    """The text of a file. GPTError for one that is not UTF-8, or ceases to be."""
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise GPTError(f"cannot read {path}: {error.strerror}") from None
    if encoding := utf_16(data):
        raise GPTError(f"{path} is UTF-16, not UTF-8: {convert(path, encoding)}")
    if (zero := data.find(b"\0")) >= 0:  # UTF-8 to the decoder, but to no person
        line = data.count(b"\n", 0, zero) + 1
        raise GPTError(f"{path}, line {line} holds a zero byte, as UTF-16 does: save the file as UTF-8 throughout")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        plain = data[: error.start].isascii()
        how = convert(path, narrow(data)) if plain else "what stands before it is; save it as UTF-8 throughout"
        byte = f"byte 0x{data[error.start]:02X} at column {column}"
        raise GPTError(f"{path}, line {line} is not UTF-8: {byte}; {how}") from None


def json_rows(path: Path, content: str) -> Iterator[Row]:
    lines = content.strip().split("\n", 2)[:2]
    one_a_line = is_json(lines[0]) and (len(lines) > 1 or path.suffix.lower() == ".jsonl")
    if one_a_line and not (len(lines) == 1 and is_list_of_rows(lines[0])):
        return json_lines(path, content)
    if content.lstrip().startswith("["):
        return listed(path, content)
    return inside(path, content) if path.suffix.lower() == ".json" else json_lines(path, content)


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def is_list_of_rows(text: str) -> bool:
    """Whether a line of JSON is a list of conversations, rather than the turns of one."""
    value = json.loads(text)
    return isinstance(value, list) and bool(value) and all(form_of(row) for row in value)


def json_lines(path: Path, content: str) -> Iterator[Row]:
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                row = GPTError(f"{path}, line {number} is not JSON: {error.msg} at column {error.colno}")
            yield f"{path}, line {number}", row


def listed(path: Path, content: str) -> Iterator[Row]:
    """The elements of a JSON list, each under the line it begins at."""
    whole(path, content)
    decoder, at, line = json.JSONDecoder(), content.index("[") + 1, 1
    seen = 0
    while True:
        at = re.compile(r"[\s,]*").match(content, at).end()
        if content[at] == "]":
            return
        line += content.count("\n", seen, at)
        seen = at
        value, at = decoder.raw_decode(content, at)
        yield f"{path}, line {line}", value


def inside(path: Path, content: str) -> Iterator[Row]:
    """The rows of a JSON object: the one list in it, or else the object is the only row."""
    value = whole(path, content)
    lists = [key for key, inner in value.items() if isinstance(inner, list)] if isinstance(value, dict) else []
    if len(lists) == 1 and lists[0] not in ("messages", "conversations"):
        return ((f"{path}, row {number}", row) for number, row in enumerate(value[lists[0]], 1))
    return iter([(f"{path}, line 1", value)])


def whole(path: Path, content: str) -> object:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise GPTError(f"{path}, line {error.lineno} is not JSON: {error.msg} at column {error.colno}") from None


def table(path: Path, content: str) -> Iterator[Row]:
    """The rows of a table with a header; the mark between cells is a comma, a semicolon or a tab."""
    head = content.split("\n", 1)[0]
    mark = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=mark, strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            begins, line = line, reader.line_num + 1
            if names is None:
                names = [name.strip() for name in cells]
            elif any(cell.strip() for cell in cells):
                row: object = dict(zip(names, cells, strict=False))
                if len(cells) != len(names):
                    row = GPTError(
                        f"{path}, line {begins} has {len(cells)} cells, the header {len(names)}: "
                        f"put a text that holds {mark!r} in double quotes"
                    )
                yield f"{path}, line {begins}", row
    except csv.Error as error:
        raise GPTError(f"{path}, line {line} is not CSV: {error}") from None


def parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise GPTError(f"{path} is not a parquet file: {str(error).splitlines()[0]}") from None
    number = 0
    with file:
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row


def is_body(text: str) -> bool:
    """Whether a cell's text holds conversations, rather than a line `source: weight` for each source."""
    return bool(TURN.match(text.lstrip()))


def body(content: str, name: str) -> Iterator[Row]:
    """Conversations written out: turns `user:` and `assistant:` (and `system:`), `---` alone on a line between two.

    A turn goes on to the line that opens the next. Rows are messages; a GPTError for words before any turn.
    """
    begins, lines = 1, []
    for number, line in enumerate([*content.split("\n"), "---"], 1):
        if not SEPARATOR.fullmatch(line.rstrip("\r")):
            lines.append(line)
            continue
        text, first = "\n".join(lines), begins
        lines, begins = [], number + 1
        if not text.strip():
            continue
        words = text.lstrip()
        where = f"{name}, line {first + text[: len(text) - len(words)].count(chr(10))}"
        parts = TURN.split(words)
        if parts[0].strip():
            said = parts[0].strip().splitlines()[0]
            yield (
                where,
                GPTError(
                    f"{where}: a conversation begins with `user:` or `system:`, not with {said[:40]!r} "
                    "(a line of --- separates conversations)"
                ),
            )
            continue
        turns = zip(parts[1::2], parts[2::2], strict=True)
        yield where, [{"role": role, "content": said.strip()} for role, said in turns]
