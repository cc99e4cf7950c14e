"""Labelled texts, for a classifier: from a cell, files or a variable, and their split into learning and testing.

The film is a joy.<tab>good      a text and its label in each line of the cell
{"text": …, "label": …}          or rows as JSON, one a line
./reviews.jsonl                  or files, globs and folders (.jsonl, .json, .csv, .tsv, .parquet)
$reviews                         or a variable: (text, label) pairs, rows, or a DataFrame
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jupyter_gpt.data import files, sources
from jupyter_gpt.errors import GPTError

TEXTS = ("text", "sentence", "review", "content", "document", "title")
LABELS = ("label", "labels", "class", "category", "sentiment", "target")
WEIGHT = re.compile(r"\s*:\s*1(\.0*)?$")  # as other cells weigh a source; labelled texts are all taken once
SUPPORTED = "labelled texts are .jsonl, .json, .csv, .tsv or .parquet"
PAIRS = "a list of (text, label) pairs or rows"
WANTED = 'a text and its label, as `text<tab>label` or {"text": …, "label": …}'


class Labelled(NamedTuple):
    """A text and its label, both in words."""

    text: str
    label: str


def read(
    body: object, variables: Mapping | None = None, bad_rows: str = "refuse", skipped: list[str] | None = None
) -> list[Labelled]:
    """The labelled texts of a cell's text, or of a list or DataFrame. Raises GPTError, with the place, for a bad row.

    bad_rows: "skip" leaves such a row out and adds the reason to `skipped`.
    """
    texts: list[Labelled] = []
    for where, row in rows(body, variables):
        try:
            if isinstance(row, GPTError):
                raise row
            texts.append(labelled(row, where))
        except GPTError as error:
            if bad_rows != "skip":
                raise
            if skipped is not None:
                skipped.append(str(error))
    return texts


def rows(body: object, variables: Mapping | None) -> Iterator[files.Row]:
    """The rows of a cell's text, a list or a DataFrame, each with its place; a GPTError for one that cannot be read."""
    if not isinstance(body, str):
        yield from ((f"item {n}", row) for n, row in enumerate(sources.rows_of(body, "the data", PAIRS)))
        return
    for number, line in enumerate(body.split("\n"), 1):
        where, stripped = f"line {number} of the cell", line.strip()
        if not stripped:
            continue
        source = WEIGHT.sub("", stripped)
        if stripped.startswith("{"):
            try:
                yield where, json.loads(stripped)
            except json.JSONDecodeError as error:
                yield where, GPTError(f"{where} is not JSON: {error.msg}")
        elif "\t" in line:
            yield where, tuple(line.rsplit("\t", 1))
        elif stripped.startswith("$"):
            values = sources.rows_of(sources.value_of(source, variables), source, PAIRS)
            yield from ((f"item {n} of {source}", row) for n, row in enumerate(values))
        elif source.lower().endswith(files.ROW_SUFFIXES) or "/" in source:
            for path in sources.paths(source, files.ROW_SUFFIXES, SUPPORTED):
                yield from files.rows(path)
        else:
            yield where, GPTError(f"{where} has no label: expected {WANTED}")


def labelled(row: object, where: str) -> Labelled:
    """A row as text and label. Raises GPTError, naming `where`, for one that lacks either."""
    if isinstance(row, Mapping):
        keys = [next((key for key in known if key in row), None) for known in (TEXTS, LABELS)]
        if None in keys:
            raise GPTError(f"{where} has the fields {', '.join(map(str, row))}: expected text and label")
        text, label = (row[key] for key in keys)
    elif isinstance(row, tuple | list) and len(row) == 2:
        text, label = row
    else:
        raise GPTError(f"{where} is a {type(row).__name__}: expected {WANTED}")
    if not isinstance(text, str) or not text.strip():
        raise GPTError(f"{where} has no text: expected {WANTED}")
    files.utf8(text, where)
    empty = label is None or label != label  # an empty cell of a table is not equal to itself
    label = "" if empty else str(label).strip()
    if not label:
        raise GPTError(f"{where} has no label: expected {WANTED}")
    return Labelled(text.strip(), label)


def check(texts: list[Labelled]) -> list[str]:
    """The labels in order. Raises GPTError for fewer than two, and for those of a single text."""
    counts = Counter(label for _, label in {(each.text, each.label) for each in texts})
    if len(counts) < 2:
        raise GPTError(
            f"there {'is one label' if counts else 'are no labelled texts'}: a classifier tells at least two apart"
        )
    once = sorted(label for label, count in counts.items() if count == 1)
    if once:
        names = ", ".join(once[:5]) + (" …" if len(once) > 5 else "")
        raise GPTError(
            f"{len(once)} label{'s occur' if len(once) > 1 else ' occurs'} once ({names}): each needs a text to "
            f"learn from and one to test on"
        )
    return sorted(counts)


def split(texts: list[Labelled], share: float, seed: int = 0) -> tuple[list[Labelled], list[Labelled]]:
    """Training and test texts: of each label `share` for the test (at least one, not all), by a hash of the text.

    The same text is never on both sides; the order is kept.
    """
    test: set[str] = set()
    for label in sorted({each.label for each in texts}):
        own = sorted({each.text for each in texts if each.label == label}, key=lambda text: place(text, seed))
        test.update(own[: min(max(1, round(share * len(own))), max(1, len(own) - 1))])
    return [each for each in texts if each.text not in test], [each for each in texts if each.text in test]


def place(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()


def batch(count: int, size: int, seed: int, step: int) -> list[int]:
    """The indices below `count` in the batch of a step, from 1; each epoch is shuffled; a batch may span two."""
    import numpy as np

    places = range((step - 1) * size, step * size)
    epochs = {place // count for place in places}
    orders = {epoch: np.random.default_rng((seed, epoch)).permutation(count) for epoch in epochs}
    return [int(orders[place // count][place % count]) for place in places]
