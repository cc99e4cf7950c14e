"""From a mixture to tokens on disk: sample, train the tokenizer, tokenize what the run needs, hold some out.

- Two passes. The first reads a sample in proportion to the weights (20 MB at most) for the tokenizer; the
  second tokenizes each source until the run has its share, or the source is exhausted. The corpus is never
  whole in memory.
- Held out by document: one in twenty, chosen by a hash of its content, so the choice outlives a source that
  grows, another seed or another order, and copies of a document fall on the same side. A source of fewer than
  20 documents gives the last tenth of each instead (of tinyshakespeare the last tenth, as nanoGPT holds out).
- A generator: it yields progress several times a second, so a stop is felt; what it returns, `yield from`
  gives.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jupyter_gpt.data import sources
from jupyter_gpt.data import tokenizer as tokenizers
from jupyter_gpt.data.documents import Documents, Writer
from jupyter_gpt.errors import GPTError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = 4096
SAMPLE = (2_000_000, 20_000_000)  # characters the tokenizer is trained on, at least and at most
MANY = 20  # documents: from here on whole documents are held out, below it the end of each
HELD_OUT = {True: 0.05, False: 0.1}  # the fraction held out, by whether the documents are many
HELD_OUT_MOST = 1_000_000  # tokens held out of the whole mixture
MARGIN = 1.05  # tokens prepared for each one wanted: packing crops some
BATCH = 200_000  # characters encoded at a time, about 50 ms
PIECE = 10_000  # characters a long document is cut into: it stops close to what is needed
# Where a text may be cut without changing its tokens: both tokenizers' pretokens always end there.
SEAM = re.compile(r"(?<=\n)(?=\S)|(?<=[^\W_])(?= [^\W_])")

Events = Generator[dict, None, Any]


class Portion(NamedTuple):
    """A document, or the part of one, that is trained on or held out as a whole."""

    text: str
    held: bool
    place: float  # [0, 1), from the content


class Piece(NamedTuple):
    """A stretch of a portion, short enough to encode in one go."""

    text: str
    opens: bool  # it is the portion's first
    portion: Portion


@dataclass
class Source:
    """One source of the mixture on its way to disk, and what has been counted of it."""

    index: int
    name: str
    weight: float
    share: float
    read: Callable[[], Iterator[str]]
    need: int  # tokens to train on
    most_held: int  # tokens
    many: bool = True
    fraction: float = 0.0  # held out
    tokens: int = 0
    held_tokens: int = 0
    bytes: int = 0
    held: list[tuple[float, int]] = field(
        default_factory=list
    )  # (place, document) of whole documents held out
    lowest: tuple[float, int] = (1.0, -1)  # (place, document), of all

    def texts(self) -> Iterator[str]:
        """Its documents that have something in them."""
        return (text for text in self.read() if text and not text.isspace())

    def portions(self, text: str) -> list[Portion]:
        """What of a document is trained on and what is held out."""
        place = _place(text, self.name)
        if self.many:
            return [Portion(text, place < self.fraction, place)]
        end = int((1 - self.fraction) * len(text))
        parts = Portion(text[:end], False, place), Portion(text[end:], True, place)
        return [part for part in parts if part.text]

    def full(self, portion: Portion) -> bool:
        """Whether it has enough already of what the portion is for."""
        if portion.held:
            return not self.many and self.held_tokens >= self.most_held
        return self.tokens >= self.need


def prepare(
    weights: Mapping[str, float],
    tokens_wanted: int,
    folder: str | Path,
    *,
    tokenizer: str | PreTrainedTokenizerBase = "bpe",
    vocab_size: int | None = None,
    context: int = 256,
    seed: int = 0,
    variables: Mapping | None = None,
    held_out: float | None = None,
) -> Generator[dict, None, tuple[PreTrainedTokenizerBase, Documents]]:
    """Tokenizes a mixture into `folder`. Yields progress events; returns (tokenizer, documents).

    weights: sampling proportions by source. tokens_wanted: how many tokens the run will see; a source with
    fewer is repeated by the packing, one with more is read only as far as needed. tokenizer: "bpe" (of
    `vocab_size`, 4096 unless given), "char", or a tokenizer. held_out: the fraction for validation, in place
    of one document in twenty or the last tenth of few. Raises GPTError for whatever a user can get wrong, as
    early as it can be known.
    """
    if held_out is not None and not 0 <= held_out < 1:
        raise GPTError(
            f"held_out is the fraction kept for validation, at least 0 and below 1, not {held_out}"
        )
    total = sum(weights.values())
    mixture = []
    for name, weight in weights.items():
        if weight > 0:
            share = weight / total
            need = int(tokens_wanted * share * MARGIN) + context + 1
            read = partial(sources.read, name, variables, seed)
            mixture.append(Source(len(mixture), name, weight, share, read, need, int(HELD_OUT_MOST * share)))
    for source in mixture:
        yield progress(f"looking at {source.name}", 0, None, "documents")
        sources.check(source.name, variables)
        found = sum(1 for _ in islice(source.texts(), MANY))
        if found == 0:
            raise GPTError(f"{source.name} has no document with any text in it")
        source.many = found == MANY
        source.fraction = HELD_OUT[source.many] if held_out is None else held_out
    if isinstance(tokenizer, str):
        tokenizer = yield from _train(tokenizer, mixture, tokens_wanted, vocab_size)
    tokenizer.model_max_length = context
    writer = Writer(Path(folder), tokenizer, tokenizers.delimiter(tokenizer))
    try:
        encode = tokenizers.Encoder(tokenizer)
        for source in mixture:
            yield from _tokenize(source, encode, writer)
        trained = sum(source.tokens for source in mixture)
        if trained <= context:
            raise GPTError(
                f"the corpus has {trained:,} tokens to train on, too few for a row of context {context:,}"
            )
        return tokenizer, writer.finish({"context": context, "sources": [_counts(s) for s in mixture]})
    finally:
        writer.close()


def progress(stage: str, done: int, total: int | None, unit: str) -> dict:
    """An event of the time before training."""
    event = {"event": "progress", "time": time.time(), "stage": stage}
    return {**event, "done": done, "total": total, "unit": unit}


def _train(kind: str, mixture: list[Source], tokens_wanted: int, vocab_size: int | None) -> Events:
    """The tokenizer of this kind, trained on a sample of the mixture."""
    if kind not in ("bpe", "char"):
        raise GPTError(f"the tokenizer is bpe, char or that of a model, not {kind!r}")
    if kind == "bpe":
        tokenizers.refuse_small(vocab_size or VOCABULARY)
    wanted = min(max(4 * tokens_wanted, SAMPLE[0]), SAMPLE[1])
    texts: list[str] = []
    last = time.monotonic()
    for source in mixture:
        taken, most = 0, int(wanted * source.share) + 1
        for text in source.texts():
            for portion in source.portions(text):
                # Merges are learned from what is trained on; characters also from what is held out, or the
                # validation text of a small corpus would hold unknown ones.
                if kind == "char" or not portion.held:
                    texts.extend(piece.text for piece in _pieces(portion, most - taken))
                    taken += min(len(portion.text), most - taken)
            if taken >= most:
                break
            if time.monotonic() - last > 0.1:
                last = time.monotonic()
                yield progress(f"reading {source.name}", taken, most, "characters")
    if kind == "char":
        work = partial(tokenizers.train_char, texts, vocab_size)
    else:
        work = partial(tokenizers.train_bpe, texts, vocab_size or VOCABULARY)
    return (yield from _meanwhile(work, "training the tokenizer"))


def _meanwhile(work: Callable[[], Any], stage: str) -> Events:
    """Yields while `work` runs on a thread of its own; returns what it returns."""
    pool = ThreadPoolExecutor(1)
    begin = time.monotonic()
    try:
        future = pool.submit(work)
        while not future.done():
            yield progress(stage, int(time.monotonic() - begin), None, "seconds")
            wait([future], timeout=0.1)
        return future.result()
    finally:
        pool.shutdown(wait=False)  # a stop need not wait for it


def _tokenize(source: Source, encode: Callable, writer: Writer) -> Events:
    """Writes one source until it has supplied the tokens it needs or is exhausted."""
    stage = f"tokenizing {source.name}"
    batch: list[Piece] = []
    size = 0
    for piece in _all_pieces(source):
        batch.append(piece)
        size += len(piece.text)
        if size >= BATCH:
            _write(source, batch, encode, writer)
            batch, size = [], 0
            yield progress(stage, min(source.tokens, source.need), source.need, "tokens")
    _write(source, batch, encode, writer)
    if source.many:
        _settle(source, writer)
    if source.tokens == 0:
        raise GPTError(f"{source.name} has nothing left to train on once {source.fraction:.0%} is held out")
    yield progress(stage, source.tokens, source.tokens, "tokens")


def _all_pieces(source: Source) -> Iterator[Piece]:
    """The pieces of a source in order; stops, and leaves out the rest of a portion, once there is enough."""
    for text in source.texts():
        if source.tokens >= source.need:
            return
        for portion in source.portions(text):
            for piece in _pieces(portion):
                if source.full(portion):
                    break
                yield piece


def _pieces(portion: Portion, most: int | None = None) -> Iterator[Piece]:
    """A portion (its first `most` characters) cut at seams, so that a batch takes what it can encode at once."""
    text = portion.text
    begin, limit = 0, len(text) if most is None else min(most, len(text))
    while begin < limit:
        seam = SEAM.search(text, begin + PIECE, limit) if limit - begin > PIECE else None
        end = seam.start() if seam else limit
        yield Piece(text[begin:end], begin == 0, portion)
        begin = end


def _write(source: Source, batch: list[Piece], encode: Callable, writer: Writer) -> None:
    for piece, ids in zip(batch, encode([piece.text for piece in batch]), strict=True):
        _, held, place = piece.portion
        if source.full(piece.portion):
            continue
        if piece.opens:
            document = writer.begin(source.index, held)
            source.lowest = min(source.lowest, (place, document))
            if held:
                source.held.append((place, document))
        writer.extend(ids)
        source.bytes += len(piece.text.encode())
        if held:
            source.held_tokens += len(ids) + piece.opens
        else:
            source.tokens += len(ids) + piece.opens


def _settle(source: Source, writer: Writer) -> None:
    """Of many documents, hold out no more than the most allowed, and at least one: those lowest in place."""
    keep: list[int] = []
    held = 0
    for _, document in sorted(source.held):
        if held + writer.length(document) <= source.most_held or not keep:
            keep.append(document)
            held += writer.length(document)
        else:
            break
    if not keep and source.fraction > 0:
        keep = [source.lowest[1]]
    for _, document in source.held:
        writer.held_out[document] = 0
    for document in keep:
        writer.held_out[document] = 1
    both = source.tokens + source.held_tokens
    source.held_tokens = sum(map(writer.length, keep))
    source.tokens = both - source.held_tokens


def _place(text: str, name: str) -> float:
    """A document's place in [0, 1), from its content alone."""
    try:
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    except UnicodeEncodeError as error:
        raise GPTError(
            f"{name} has a document with half a character (a lone surrogate, U+{ord(text[error.start]):04X}, "
            f"at character {error.start:,})"
        ) from None
    return int.from_bytes(digest) / 2**64


def _counts(source: Source) -> dict:
    return {
        "name": source.name,
        "weight": source.weight,
        "tokens": source.tokens,
        "held_out_tokens": source.held_tokens,
        "bytes": source.bytes,
        "exhausted": source.tokens < source.need,
    }
