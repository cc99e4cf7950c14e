"""A mixture: sources and their weights, as written in a cell, and the table of what it amounts to.

The weights are sampling proportions, as in the table of LLaMA's paper (arXiv:2302.13971, table 1): a source makes up
its share of every batch, however large it is; the epochs say how often it is seen for that.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_gpt.data import hub, sources
from jupyter_gpt.data import tokenizer as tokenizers
from jupyter_gpt.data.files import utf8
from jupyter_gpt.data.long_text import parts
from jupyter_gpt.data.split import Portion, pieces
from jupyter_gpt.errors import GPTError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READ = 64_000_000  # bytes of a source read to count its documents
COUNT = 4_000_000  # bytes of a source tokenized to count its tokens
SAMPLE = 2_000_000  # characters the tokenizer of a survey is trained on
BATCH = 200_000  # characters encoded at a time
VOCABULARY = 4096
COMMENT = re.compile(r"(?:^|\s)#.*")


@dataclass(frozen=True)
class Row:
    """One line of the table: None where a source is endless or on the hub, or no horizon is known."""

    source: str
    documents: int | None
    tokens: int | None
    bytes: int | None
    weight: float
    share: float  # of the sampled batch
    epochs: float | None
    varies: bool  # its counts differ from machine to machine
    estimated: bool  # its counts are extrapolated from the part that was read


def parse(text: str) -> dict[str, float]:
    """The mixture in a cell's body: a line `source: weight` for each, or `{source: weight, …}`; or one source alone.
    GPTError otherwise.

    The lines are those of a YAML mapping, except that `*` and `[` may begin a source, as in a glob.
    """
    body, mixture = text.strip(), {}
    lines = [COMMENT.sub("", line).strip() for line in body.splitlines()]
    lines = [line for line in lines if line not in ("", "---")]
    if len(lines) == 1 and len(lines[0].split()) == 1 and lines[0][0] != "{" and lines[0][-1] != ":":
        return {lines[0].strip("'\""): 1.0}
    for line in [COMMENT.sub("", pair).strip() for pair in body[1:-1].split(",")] if body[:1] == "{" else lines:
        if not line:
            continue
        pair = re.fullmatch(r"(.+):(?:\s+(.*))?", line)
        source, weight = (pair[1].strip().strip("'\""), pair[2]) if pair else (line, None)
        if source in mixture:
            raise GPTError(f"{source} is twice in the mixture")
        percent = re.fullmatch(r"([0-9.]+) ?%", weight or "")  # as in LLaMA's table
        try:
            mixture[source] = float(percent[1] if percent else weight or "")
        except ValueError:
            problem = f"the weight of {source} is {weight!r}, not a number" if weight else f"{source} has no weight"
            raise GPTError(f"{problem}: expected a line `source: weight`, such as `stories: 3`") from None
    return check(mixture)


def read(given: object, variables: Mapping | None = None) -> tuple[dict[str, float], Mapping | None]:
    """The mixture that Python gives (a mapping, the text of one, a Path, or the data themselves, which become the
    variable `$data`), and the variables. Raises GPTError as `check` does."""
    if isinstance(given, str):
        return parse(given), variables
    if isinstance(given, Path):
        return {str(given): 1.0}, variables
    if isinstance(given, Mapping):
        return check(given), variables
    if isinstance(given, list | tuple) and given and all(map(is_file, given)):
        raise GPTError(f"{str(given[0])!r:.60} would be taken as a text: sources are a mapping, {{source: weight, …}}")
    return {"$data": 1.0}, {**(variables or {}), "data": given}


def is_file(item: object) -> bool:
    """Whether an item of a list is a file or a dataset of the hub, and no text."""
    if not isinstance(item, str) or len(item) > 1000:
        return isinstance(item, Path)
    return hub.SOURCE.fullmatch(item) is not None or os.path.isfile(item)  # noqa: PTH113 (of no valid name False)


def check(mixture: Mapping[str, float]) -> dict[str, float]:
    """The mixture if its weights make sense: numbers, none negative, not all zero. GPTError otherwise."""
    if not mixture:
        raise GPTError("the mixture is empty: expected a line `source: weight` for each source, such as `stories: 3`")
    for source, weight in mixture.items():
        if not isinstance(source, str):
            raise GPTError(f"{source!r:.40} is not a source: a source is a name, a path, hf:owner/name or $variable")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise GPTError(f"the weight of {source} is {weight!r:.40}, not a number")
        if weight < 0:
            raise GPTError(f"the weight of {source} is {weight:g}: a sampling proportion is never negative")
    if not any(mixture.values()):
        raise GPTError("every weight of the mixture is zero: nothing would be sampled")
    return {source: float(weight) for source, weight in mixture.items()}


def survey(
    weights: Mapping[str, float],
    variables: Mapping | None = None,
    seed: int = 0,
    horizon_tokens: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[Row]:
    """The table of a mixture: the size of each source, its share of a batch, its epochs over a horizon.

    Tokens are those of `tokenizer`, or of a BPE trained on a sample of the mixture. A source larger than READ is
    estimated from the sizes of its files, and a large one on the hub is not counted. Raises GPTError as `sources.check`
    does, for every source.
    """
    weights = check(weights)
    for source in weights:
        sources.check(source, variables)
    varies = {source: source == "python" for source in weights}
    sized = any(source not in sources.ENDLESS for source in weights)
    if tokenizer is None and sized:
        # The tokens of every source depend on what the merges were learned from.
        varies = dict.fromkeys(weights, any(varies.values()))
        tokenizer = tokenizers.train_bpe(_sample(weights, variables, seed), VOCABULARY)
    encode = tokenizers.Encoder(tokenizer) if sized else None
    total = sum(weights.values())
    rows = []
    for source, weight in weights.items():
        share, counted = weight / total, Count()
        if source not in sources.ENDLESS:
            counted = count(source, variables, seed, encode)
            if not counted.documents and not counted.estimated:
                raise GPTError(f"{source} has no document with any text in it")
        epochs = share * horizon_tokens / counted.tokens if horizon_tokens and counted.tokens else None
        counts = (counted.documents or None, counted.tokens or None, counted.bytes or None)
        rows.append(Row(source, *counts, weight, share, epochs, varies[source], counted.estimated))
    return rows


def _sample(weights: Mapping[str, float], variables: Mapping | None, seed: int) -> list[str]:
    texts = []
    for source, weight in weights.items():
        left = int(SAMPLE * weight / sum(weights.values()))
        for text in sources.read(source, variables, seed):
            if left <= 0:
                break
            texts.append("".join(parts(text[:left])))
            left -= len(text)
            for part in parts(text):
                utf8(part, f"a document of {source}")  # raises the error that the tokenizer would not explain
    return texts


@dataclass
class Count:
    """The size of a source, perhaps an estimate; all zero and estimated where it is unknown."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    estimated: bool = False


def count(source: str, variables: Mapping | None, seed: int, encode: Callable) -> Count:
    """Reads READ bytes of a source at most, and tokenizes COUNT bytes of that; the rest is in proportion."""
    seen, encoded, tokens = Count(), 0, 0
    most = COUNT if source.startswith("hf:") else math.inf if source.startswith("$") else READ
    batch: list[str] = []
    for text in sources.read(source, variables, seed):
        if not text or text.isspace():
            continue
        if seen.bytes >= most:
            if source.startswith("hf:"):
                return Count(estimated=True)
            seen.estimated = True
            break
        seen.documents += 1
        seen.bytes += sum(len(utf8(part, f"a document of {source}")) for part in parts(text))
        if encoded < COUNT:
            batch += [piece.text for piece in pieces(Portion(text, False, 0.0), COUNT)]
        if sum(map(len, batch)) > BATCH:
            tokens += sum(map(len, encode(batch)))
            encoded += sum(len(text.encode()) for text in batch)
            batch = []
    tokens += sum(map(len, encode(batch)))
    encoded += sum(len(text.encode()) for text in batch)
    if seen.estimated:
        total = sources.size(source)
        seen.documents = round(seen.documents * total / seen.bytes)
        seen.bytes = total
    if encoded:
        seen.tokens = round(tokens * seen.bytes / encoded) + seen.documents  # each has its delimiter
    seen.estimated = seen.estimated or encoded < seen.bytes
    return seen
