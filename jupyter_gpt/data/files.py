"""Documents and rows from files, read as UTF-8.

- `read` gives documents: a .txt or .md is one, a line of a .jsonl or a row of a .parquet is one each. A text of more
  than LONG bytes is a `LongText`, which is not in memory.
- `rows` gives the rows of JSON lines, JSON, CSV, TSV and parquet, each with its place: `mine.jsonl, line 37`. A row
  that cannot be read is a GPTError in its place, so that the caller may skip it; where nothing after it can be read
  either, it is raised.

Text is kept byte for byte (no newline is translated); only a byte order mark at the start is dropped.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path

from jupyter_gpt.data import arrow
from jupyter_gpt.data.long_text import LongText
from jupyter_gpt.errors import GPTError

TEXT = (".txt", ".md")
SUFFIXES = (*TEXT, ".jsonl", ".parquet")
SUPPORTED = "a source is .txt, .md, .jsonl or .parquet"
ROW_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
BLANK = re.compile(r"[ \t\n\r]*")
LONG = 64 << 20  # bytes of a text from which on it is not read whole
LONGEST = 16 << 20  # bytes of a row
CHUNK = 1 << 20  # bytes of a file read at a time
CHECKED = 64 << 20  # bytes read before work starts; an error beyond them is raised on reading

Row = tuple[str, object]  # the place, and the row or the GPTError that says why it cannot be read


def read(paths: list[Path]) -> Iterator[str | LongText]:
    """The documents of the files, in order. GPTError names the file and place of what cannot be read."""
    for path in paths:
        if path.suffix.lower() == ".parquet":
            _, column = _text_column(path)
            yield from (row[column] for _, row in _parquet_rows(path, [column]) if row[column] is not None)
        elif path.suffix.lower() == ".jsonl":
            for where, row in _json_lines(path):
                if isinstance(row, GPTError):
                    raise row
                if not (isinstance(row, Mapping) and row.get("text", "") is None):  # as in a column of parquet
                    yield text_of(row, where)
        else:
            yield LongText(partial(chunks, path)) if size(path) > LONG else contents(path)


def check(paths: list[Path]) -> None:
    """Raises GPTError when the files are empty or, in their first bytes, not what their names say."""
    left = CHECKED
    for path in paths:
        if left <= 0:
            break
        if path.suffix.lower() == ".parquet":
            _text_column(path)
            continue
        with _open(path) as file:
            data = file.read(left)
        left -= len(data)
        decode(path, data, final=len(data) == path.stat().st_size)
        if path.suffix.lower() == ".jsonl":
            next(read([path]), None)
    if not any(map(size, paths)):
        raise GPTError(f"{paths[0]} is empty" if len(paths) == 1 else f"all {len(paths)} files are empty")


def size(path: Path) -> int:
    """Bytes in the file; for parquet, bytes of its text column uncompressed (from the footer)."""
    if path.suffix.lower() != ".parquet":
        return path.stat().st_size
    file, column = _text_column(path)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    index = file.schema_arrow.names.index(column)
    return sum(group.column(index).total_uncompressed_size for group in groups) if file.metadata.num_rows else 0


def text_of(row: object, where: str) -> str:
    """The field `text` of a row, or its single string; a string is itself. GPTError, naming `where`, otherwise."""
    if isinstance(row, str):
        return row
    if not isinstance(row, Mapping):
        raise GPTError(f"{where} is a {type(row).__name__}: a document is a string, or a row with a field `text`")
    return row[text_field([key for key, value in row.items() if isinstance(value, str)], where)]


def text_field(names: list[str], where: str) -> str:
    """`text` if it is among the `names` of the fields that hold strings, else the only one. GPTError otherwise."""
    if "text" in names:
        return "text"
    if not names:
        raise GPTError(f"{where} has no field `text` and no other string")
    if len(names) > 1:
        raise GPTError(f"{where} has no field `text`, and several that hold strings: {', '.join(names)}")
    return names[0]


# UTF-8


def utf8(text: str, what: str) -> bytes:
    """The text in UTF-8. GPTError for a lone surrogate, as JSON may spell it and no tokenizer takes it."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise GPTError(
            f"{what} has half a character: {code}, a lone surrogate, at character {error.start:,} of a text"
        ) from None


def decode(path: Path, data: bytes, before: int = 0, final: bool = True) -> str:
    """`data`, which begins at byte `before` of the file, as text. `final`: no byte of the file follows."""
    if before == 0 and (encoding := _utf_16(data)):
        raise GPTError(f"{path} is UTF-16, not UTF-8: {_conversion(path, encoding)}")
    if (zero := data.find(b"\0")) >= 0:
        line, _, _ = _position(path, before + zero)
        raise GPTError(f"{path}, line {line} has a zero byte: it is not UTF-8 text but binary, or UTF-16 in part")
    try:
        text, _ = codecs.utf_8_decode(data, "strict", final)
    except UnicodeDecodeError as error:
        line, column, ascii_before = _position(path, before + error.start)
        fix = "the text before it is UTF-8: save the whole file as UTF-8"
        if ascii_before:
            fix = _conversion(path, _single_byte_encoding(data))
        byte = f"byte 0x{data[error.start]:02X} at column {column}"
        raise GPTError(f"{path}, line {line} is not UTF-8: {byte}; {fix}") from None
    return text.removeprefix("\ufeff") if before == 0 else text


def _open(path: Path):
    try:
        return path.open("rb")
    except OSError as error:
        raise GPTError(f"cannot read {path}: {error.strerror}") from None


def _position(path: Path, at: int) -> tuple[int, int, bool]:
    """Line and column of byte `at` of a file, from 1, and whether all bytes before it are ASCII."""
    with _open(path) as file:
        head = file.read(at).removeprefix(codecs.BOM_UTF8)
    return head.count(b"\n") + 1, len(head) - head.rfind(b"\n"), head.isascii()


def _utf_16(data: bytes) -> str | None:
    """The name of the encoding of a file that begins with these bytes, where it is UTF-16."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return {b"\0": "utf-16-be", b"": None}.get(data[:1], "utf-16-le" if data[1:2] == b"\0" else None)


def _single_byte_encoding(data: bytes) -> str:
    """The likely encoding of a text that is not UTF-8: that of Windows, or else Latin-1."""
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _conversion(path: Path, encoding: str) -> str:
    """How to make a file UTF-8: a line of Python."""
    new = path.with_name(f"{path.stem}-utf8{path.suffix}")
    return (
        f"convert it with `from pathlib import Path; Path({str(new)!r})"
        f".write_text(Path({str(path)!r}).read_text({encoding!r}), 'utf-8')`"
    )


def _parquet(path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise GPTError(f"{path} is not a parquet file: {str(error).splitlines()[0]}") from None


def _text_column(path: Path):
    """The open parquet file and the name of its text column."""
    file = _parquet(path)
    strings = [field.name for field in file.schema_arrow if str(field.type) in ("string", "large_string")]
    return file, text_field(strings, str(path))


# Rows


def rows(path: Path) -> Iterator[Row]:
    """The rows of a file with one of ROW_SUFFIXES, in order; those of lines, tables and parquet are read one by one.

    JSON lines under the name .json, and a JSON list under .jsonl, are read as what they are.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path)
    if suffix in (".csv", ".tsv"):
        return _table_rows(path)
    lines = _first_lines(path)
    values = [_json_of(line) for line in lines]
    if len(lines) == 2 and all(isinstance(value, dict) for value in values):
        return _json_lines(path)
    if values and values[0] is not None and (len(lines) == 2 or suffix == ".jsonl"):
        return _json_list(path) if len(lines) == 1 and _is_list_of_rows(values[0]) else _json_lines(path)
    if lines and lines[0].lstrip().startswith("["):
        return _json_list(path)
    return (
        _json_objects(path)
        if suffix == ".json" or ("".join(map(str.strip, lines)).startswith('{"') and lines[0].strip() == "{")
        else _json_lines(path)
    )


def _first_lines(path: Path) -> list[str]:
    """The first two lines that are not blank. Of one longer than any row is, its beginning."""
    found, before = [], 0
    with _open(path) as file:
        while len(found) < 2 and (line := file.readline(LONGEST)):
            text = decode(path, line, before, final=len(line) < LONGEST)
            before += len(line)
            if text.strip():
                found.append(text)
    return found


def _json_of(line: str) -> object:
    """The JSON value of a line; None where it is not one."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def contents(path: Path) -> str:
    """The whole text of a file."""
    with _open(path) as file:
        return decode(path, file.read())


def chunks(path: Path) -> Iterator[str]:
    """The text of a file in pieces of about CHUNK bytes."""
    before, rest = 0, b""
    with _open(path) as file:
        while data := file.read(CHUNK):
            data = rest + data
            end = len(data) - 1
            while end > max(0, len(data) - 4) and data[end] & 0xC0 == 0x80:  # within a character
                end -= 1
            yield decode(path, data[:end], before)
            before, rest = before + end, data[end:]
    yield decode(path, rest, before)


def lines(path: Path) -> Iterator[str]:
    """The lines of a file, with the newline at their ends."""
    before = 0
    with _open(path) as file:
        for line in file:
            yield decode(path, line, before)
            before += len(line)


def _is_list_of_rows(value: object) -> bool:
    """Whether a JSON value is a list of rows, rather than one conversation or one pair."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(row, list) or (isinstance(row, dict) and not {"role", "from"} & row.keys()) for row in value)


def _json_lines(path: Path) -> Iterator[Row]:
    for number, text in enumerate(lines(path), 1):
        if text.strip():
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(text)
            except json.JSONDecodeError as error:
                yield where, GPTError(f"{where} is not JSON: {error.msg} at column {error.colno}")


def _json_list(path: Path) -> Iterator[Row]:
    """The elements of a JSON list, each under the line it begins at. The text is read as a whole, which a list larger
    than the memory does not allow: as JSON lines it is read row by row.
    """
    text, decoder, line, counted, more = contents(path), json.JSONDecoder(), 1, 0, True
    at = text.index("[") + 1
    while more:
        at = BLANK.match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess]
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            break
        yield f"{path}, line {line}", value
        at = BLANK.match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess]
        more = text[at : at + 1] == ","
        at += 1
    if more or text[at - 1 :].strip() != "]":  # empty, or broken: the parser says where
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise _not_json(path, error) from None


def _not_json(path: Path, error: json.JSONDecodeError) -> GPTError:
    return GPTError(f"{path}, line {error.lineno} is not JSON: {error.msg} at column {error.colno}")


def _json_objects(path: Path) -> Iterator[Row]:
    """The rows of a JSON object, those of the only list in it or else the object itself; of several objects each."""
    text, at, values = contents(path), 0, []
    decoder = json.JSONDecoder()
    try:
        while at < len(text) and (start := at + len(text[at:]) - len(text[at:].lstrip())) < len(text):
            value, at = decoder.raw_decode(text, start)
            values.append((f"{path}, line {text.count(chr(10), 0, start) + 1}", value))
        if not values:
            json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_json(path, error) from None
    value = values[0][1]
    lists = [key for key, inner in value.items() if isinstance(inner, list)] if isinstance(value, dict) else []
    if len(values) == len(lists) == 1 and lists[0] not in ("messages", "conversations"):
        return ((f"{path}, row {number}", row) for number, row in enumerate(value[lists[0]], 1))
    return iter(values)


def _table_rows(path: Path) -> Iterator[Row]:
    """The rows of a table with a header; cells are separated by a comma, a semicolon or a tab."""
    read = (line for part in lines(path) for line in io.StringIO(part, newline=""))  # they may end with \r alone
    head = next(read, "")
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(chain([head], read), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            if names is None:
                names = [name.strip() for name in cells]
            elif len(cells) != len(names) and any(map(str.strip, cells)):
                yield (
                    where,
                    GPTError(
                        f"{where} has {len(cells)} cells, the header {len(names)}: "
                        f"put a text that contains {delimiter!r} in double quotes"
                    ),
                )
            elif any(map(str.strip, cells)):
                yield where, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise GPTError(f"{path}, line {line} is not CSV: {error}") from None


def _parquet_rows(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    with _parquet(path) as file:
        rows = (row for batch in file.iter_batches(batch_size=256, columns=columns) for row in batch.to_pylist())
        yield from ((f"{path}, row {number}", arrow.row(row)) for number, row in enumerate(rows, 1))
