"""The text of a row: of a line of JSON, of a dict in a list, of the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping

from jupyter_gpt.errors import GPTError


def text_of(row: object, where: str) -> str:
    """The field `text` of a row, or its single string; a bare string is itself. GPTError otherwise, naming
    `where`."""
    if isinstance(row, str):
        return row
    if not isinstance(row, Mapping):
        raise GPTError(f"{where} is a {type(row).__name__}: a document is a string, or a row with a field `text`")
    if isinstance(row.get("text"), str):
        return row["text"]
    texts = [key for key, value in row.items() if isinstance(value, str)]
    return row[only_text(texts, where)]


def only_text(names: list[str], where: str) -> str:
    """`text` if it is among the `names` of the fields that hold strings, else the single one. GPTError
    otherwise."""
    if "text" in names:
        return "text"
    if not names:
        raise GPTError(f"{where} holds no string (a field `text` is wanted)")
    if len(names) > 1:
        raise GPTError(f"{where} has no field `text`, and several that hold strings: {', '.join(names)}")
    return names[0]
