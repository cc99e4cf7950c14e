"""Rows of Arrow's tables: of parquet files, of datasets, of a DataFrame that was read from such a file.

In a column of Arrow all objects have the same keys: those that one of a row lacks are there with the value None. In the
arguments of a tool call and in the schema of a tool that would be `null`, which nobody wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOOLS = ("tools", "tool_calls")


def row(value: Any) -> Any:
    """A row whose tools and tool calls are without the keys that Arrow has added."""
    if isinstance(value, Mapping):
        return {key: written(each) if key in TOOLS else row(each) for key, each in value.items()}
    return [row(each) for each in value] if is_list_of_objects(value) else value


def row_of_frame(value: Mapping) -> dict:
    """The same of a row of a DataFrame, in which lists from Arrow are arrays; others are the user's own."""
    return {key: row({key: each})[key] if hasattr(each, "tolist") else each for key, each in value.items()}


def is_list_of_objects(value: Any) -> bool:
    listed = isinstance(value, list) or getattr(value, "ndim", 0) == 1
    return listed and len(value) > 0 and isinstance(value[0], Mapping)


def written(value: Any) -> Any:
    """A value without the keys of its objects whose value is None."""
    if isinstance(value, Mapping):
        return {key: written(each) for key, each in value.items() if each is not None}
    return [written(each) for each in value] if isinstance(value, list) or getattr(value, "ndim", 0) == 1 else value
