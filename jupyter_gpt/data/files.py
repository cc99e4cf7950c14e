"""Documents from files: a .txt or .md is one document; a .jsonl line or a .parquet row is one each.

Text is kept as it is, byte for byte (no newline is translated); only a byte order mark at the start is
dropped.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from jupyter_gpt.data.rows import only_text, text_of
from jupyter_gpt.errors import GPTError

TEXT = (".txt", ".md")
SUFFIXES = (*TEXT, ".jsonl", ".parquet")
SUPPORTED = "a source is .txt, .md, .jsonl or .parquet"
LOOK = 64 << 20  # bytes read before work starts; a fault beyond them is found, and told the same way, on reading


def read(paths: list[Path]) -> Iterator[str]:
    """The documents of the files, in order. GPTError names the file and place of what cannot be read."""
    for path in paths:
        if path.suffix.lower() == ".parquet":
            yield from _parquet(path)
        elif path.suffix.lower() == ".jsonl":
            yield from _jsonl(path)
        else:
            yield _text(path, _open(path).read())


def check(paths: list[Path]) -> None:
    """Raises GPTError when the files are empty or, in the first bytes of them, not what their names say."""
    left = LOOK
    for path in paths:
        if left <= 0:
            break
        if path.suffix.lower() == ".parquet":
            _parquet_column(path)
            continue
        with _open(path) as file:
            data = file.read(left)
        left -= len(data)
        _text(path, data, final=len(data) == path.stat().st_size)
        if path.suffix.lower() == ".jsonl":
            next(_jsonl(path), None)
    if not any(map(size, paths)):
        raise GPTError(f"{paths[0]} is empty" if len(paths) == 1 else f"all {len(paths)} files are empty")


def size(path: Path) -> int:
    """Bytes in the file; for parquet, bytes of its text column uncompressed (from the footer)."""
    if path.suffix.lower() != ".parquet":
        return path.stat().st_size
    file, column = _parquet_column(path)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    index = file.schema_arrow.names.index(column)
    return sum(group.column(index).total_uncompressed_size for group in groups) if file.metadata.num_rows else 0


def _open(path: Path):
    try:
        return path.open("rb")
    except OSError as error:
        raise GPTError(f"cannot read {path}: {error.strerror}") from None


def utf_16(data: bytes) -> str | None:
    """The name of the encoding of a file that begins with these bytes, where it is UTF-16."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return {b"\0": "utf-16-be", b"": None}.get(data[:1], "utf-16-le" if data[1:2] == b"\0" else None)


def narrow(data: bytes) -> str:
    """The encoding that a text which is not UTF-8 is likely to have: of Windows, or else Latin-1."""
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def convert(path: Path, encoding: str) -> str:
    """How to make a file UTF-8: a line of Python."""
    new = path.with_name(f"{path.stem}-utf8{path.suffix}")
    return (
        f"convert it with `from pathlib import Path; Path({str(new)!r})"
        f".write_text(Path({str(path)!r}).read_text({encoding!r}), 'utf-8')`"
    )


def _text(path: Path, data: bytes, before: int = 0, final: bool = True) -> str:
    """`data`, which stands at byte `before` of the file, as text."""
    if before == 0 and (encoding := utf_16(data)):
        raise GPTError(f"{path} is UTF-16, not UTF-8: {convert(path, encoding)}")
    zero = data.find(b"\0")
    if zero >= 0:
        raise GPTError(f"{path} is a binary file, not text (a zero byte at byte {before + zero:,})")
    try:
        text, _ = codecs.utf_8_decode(data, "strict", final)
    except UnicodeDecodeError as error:
        at = before + error.start
        with _open(path) as file:
            plain = file.read(at).isascii()
        how = convert(path, narrow(data)) if plain else "what stands before it is; save it as UTF-8 throughout"
        raise GPTError(f"{path} is not UTF-8: byte 0x{data[error.start]:02X} at byte {at:,}; {how}") from None
    return text.removeprefix("\ufeff") if before == 0 else text


def _jsonl(path: Path) -> Iterator[str]:
    before = 0
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            text = _text(path, line, before)
            before += len(line)
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise GPTError(f"{path}, line {number} is not JSON: {error.msg} at column {error.colno}") from None
            yield text_of(row, f"{path}, line {number}")


def _parquet_column(path: Path):
    """The open parquet file and the name of its column of text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise GPTError(f"{path} is not a parquet file: {str(error).splitlines()[0]}") from None
    strings = [
        field.name
        for field in file.schema_arrow
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    return file, only_text(strings, str(path))


def _parquet(path: Path) -> Iterator[str]:
    file, column = _parquet_column(path)
    with file:
        for batch in file.iter_batches(batch_size=256, columns=[column]):
            for value in batch.column(0):
                if value.is_valid:
                    yield value.as_py()
