"""Documents streamed from a dataset of the Hugging Face hub: `hf:owner/name[:column]`, split `train`.

Only what is read is downloaded. An unreachable hub is reported in seconds, not after the client's own retries.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator

from jupyter_gpt.data.files import text_field
from jupyter_gpt.errors import GPTError

TIMEOUT = 4.0  # seconds


def read(source: str) -> Iterator[str]:
    """The documents, streamed. Raises GPTError, in one line, when the hub or the dataset fails."""
    name, column = _parse(source)
    dataset = _dataset(source, name)
    for number, row in enumerate(_rows(source, dataset)):
        if column is None:
            strings = [key for key, value in row.items() if isinstance(value, str)]
            column = text_field(strings, f"{source} (choose one: {source}:column)")
        if column not in row:
            raise GPTError(f"{source} has no column {column}; it has {', '.join(row)}")
        text = row[column]
        if text is None:
            continue
        if not isinstance(text, str):
            raise GPTError(f"row {number} of {source}: its {column} is a {type(text).__name__}, not a string")
        yield text


def rows(source: str) -> Iterator[tuple[str, object]]:
    """Whole rows, or of each the one column that `source` names, with the place of each; streamed, as `read` does."""
    name, column = _parse(source)
    for number, row in enumerate(_rows(source, _dataset(source, name))):
        if column is not None and column not in row:
            raise GPTError(f"{source} has no column {column}; it has {', '.join(row)}")
        yield f"row {number} of {source}", row if column is None else row[column]


def check(source: str) -> None:
    """Raises GPTError when the extra is missing, the hub cannot be reached, or the dataset has no text."""
    if next(read(source), None) is None:
        raise GPTError(f"{source} is empty")


def _parse(source: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+|[\w.-]+)(?::(.+))?", source)
    if not match:
        raise GPTError(f"{source} is not a dataset of the hub: write hf:owner/name, or hf:owner/name:column")
    return match[1], match[2]


def _dataset(source: str, name: str):
    try:
        import datasets
    except ImportError:
        raise GPTError(f"{source} needs an extra: pip install 'jupyter_gpt[data]'") from None
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        _reach(constants.ENDPOINT)
    try:
        return datasets.load_dataset(name, split="train", streaming=True)
    except Exception as error:
        raise _one_line(source, error) from error


def _reach(endpoint: str) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        return  # an answer, whatever it says
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise GPTError(f"the hub {endpoint} cannot be reached ({reason}); is this machine online?") from None


def _rows(source: str, dataset) -> Iterator[dict]:
    """The rows; a failure of the hub or its client becomes one line."""
    try:
        yield from dataset
    except Exception as error:
        raise _one_line(source, error) from error


def _one_line(source: str, error: Exception) -> GPTError:
    lines = str(error).strip().splitlines()
    return GPTError(f"cannot read {source}: {type(error).__name__}: {lines[0] if lines else 'no reason given'}")
