"""Datasets of the Hugging Face hub, streamed and shuffled: `hf:owner/name[/config][@split][:column]`.

Without a split it is `train`. Only what is read is downloaded: shuffled are the shards, and the rows within a buffer.
An unreachable hub is reported in seconds, not after the client's own retries.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jupyter_gpt.data import arrow
from jupyter_gpt.data.files import text_field
from jupyter_gpt.errors import GPTError

FORM = "hf:owner/name, with /config, @split and :column where they are needed"
SOURCE = re.compile(r"hf:([\w.-]+(?:/[\w.-]+)?)(?:/([\w.-]+))?(?:@([^:@]+))?(?::(.+))?")
BUFFER = 1000  # rows that are shuffled among themselves
TIMEOUT = 4.0  # seconds; the hub's client would retry for 23 without a network


class Unreachable(Exception):
    """The hub or the package index does not answer; the message says why."""


def reach() -> str:
    """The hub's address, after one request. Raises Unreachable."""
    from huggingface_hub import constants

    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
    if constants.HF_HUB_OFFLINE:
        raise Unreachable("the hub is switched off (HF_HUB_OFFLINE)")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError as error:
        raise Unreachable(f"the hub cannot be reached ({getattr(error, 'reason', error)})") from error
    return endpoint


def rows(source: str) -> Iterator[tuple[str, object]]:
    """The place and the content of each row, or of its one column that `source` names. Raises GPTError."""
    match = SOURCE.fullmatch(source)
    if not match:
        raise GPTError(f"{source} is not a dataset of the hub: write {FORM}")
    name, config, split, column = match.groups()
    dataset = _dataset(source, name, config, split or "train")
    with _one_line(source):
        for number, row in enumerate(dataset):
            if column is not None and column not in row:
                raise GPTError(f"{source} has no column {column}; it has {', '.join(row)}")
            row = arrow.row(row)
            yield f"row {number} of {source}", row if column is None else row[column]


def read(source: str) -> Iterator[str]:
    """The documents: the column `text`, the only one of strings, or the one that `source` names. Raises GPTError."""
    column = None
    for where, row in rows(source):
        if isinstance(row, Mapping):
            strings = [key for key, value in row.items() if isinstance(value, str)]
            column = column or text_field(strings, f"{source} (choose one: {source}:column)")
            row = row[column]
        if row is not None and not isinstance(row, str):
            raise GPTError(f"{where} is a {type(row).__name__}, not a string")
        if row is not None:
            yield row


def _dataset(source: str, name: str, config: str | None, split: str):
    try:
        import datasets
    except ImportError:
        raise GPTError(f"{source} needs an extra: pip install 'jupyter_gpt[data]'") from None
    from huggingface_hub import constants

    try:
        if not constants.HF_HUB_OFFLINE:  # else the client's cache may have it
            reach()
    except Unreachable as error:
        raise GPTError(f"cannot read {source}: {error}; is this machine online?") from None
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # a notebook would be saved with them
    try:
        with _one_line(source):
            found = datasets.load_dataset(name, config, split=split, streaming=True)
            return found.shuffle(seed=0, buffer_size=BUFFER)
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _one_line(source: str) -> Iterator[None]:
    """A failure of the hub or its client becomes a GPTError."""
    try:
        yield
    except GPTError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise GPTError(
            f"cannot read {source}: {type(error).__name__}: {lines[0] if lines else 'no reason given'}"
        ) from error
