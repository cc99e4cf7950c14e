"""From a mixture to tokens on disk: sample, train the tokenizer, tokenize what the run needs, hold some out.

- Two passes. The first reads a sample in proportion to the weights (20 MB at most) for the tokenizer; the
  second tokenizes each source until the run has its share, or the source is exhausted. The corpus is never
  whole in memory.
- A generator: it yields progress several times a second, so that a stop is felt.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_gpt.data import sources
from jupyter_gpt.data import tokenizer as tokenizers
from jupyter_gpt.data.documents import Documents, Writer
from jupyter_gpt.data.mixture import check
from jupyter_gpt.data.split import Piece, Source, pieces
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.events import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = 4096
SAMPLE = (2_000_000, 20_000_000)  # characters the tokenizer is trained on, at least and at most
HELD_OUT_MOST = 1_000_000  # tokens held out of the whole mixture
MARGIN = 1.05  # tokens prepared for each one needed: packing chooses among more than it takes
BATCH = 200_000  # characters encoded at a time, about 50 ms

Events = Generator[Progress, None, Any]


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
) -> Generator[Progress, None, tuple[PreTrainedTokenizerBase, Documents]]:
    """Tokenizes a mixture into `folder`. Yields progress events; returns (tokenizer, documents).

    weights: sampling proportions by source. tokens_wanted: how many tokens the run will see; a source with fewer is
    repeated by the packing, one with more is read only as far as needed. tokenizer: "bpe" (of `vocab_size`, 4096 unless
    given), "char", or a tokenizer. held_out: the fraction for validation, in place of one document in twenty or the
    last tenth of few (see `split.py`). Raises GPTError for whatever a user can get wrong, as early as it can be known.
    """
    weights = check(weights)
    total = sum(weights.values())
    mixture = []
    for name, weight in weights.items():
        if weight > 0:
            share = weight / total
            need = int(tokens_wanted * share * MARGIN) + context + 1
            read = partial(sources.read, name, variables, seed)
            held = int(HELD_OUT_MOST * share)
            mixture.append(Source(len(mixture), name, weight, share, read, need, held, context))
    for source in mixture:
        yield Progress(f"looking at {source.name}", 0, None, "documents")
        sources.check(source.name, variables)
        source.look(held_out)
    if isinstance(tokenizer, str):
        tokenizer = yield from _train(tokenizer, mixture, tokens_wanted, vocab_size)
    else:
        tokenizer = copy.deepcopy(tokenizer)  # another model's stays as it is
        tokenizer.chat_template = None  # what is pretrained here has yet to learn a chat
    delimiter = tokenizers.delimiter(tokenizer)
    tokenizers.begin_texts_with(tokenizer, delimiter)
    tokenizer.model_max_length = context
    writer = Writer(Path(folder), tokenizer, delimiter)
    try:
        encode = tokenizers.Encoder(tokenizer)
        for source in mixture:
            yield from _tokenize(source, encode, writer)
        trained = sum(source.tokens for source in mixture)
        if trained <= context:
            raise GPTError(f"the corpus has {trained:,} tokens to train on, too few for a row of context {context:,}")
        return tokenizer, writer.finish({"context": context, "sources": [source.counts() for source in mixture]})
    finally:
        writer.close()


def _train(kind: str, mixture: list[Source], tokens_wanted: int, vocab_size: int | None) -> Events:
    """The tokenizer of this kind, trained on a sample of the mixture."""
    if kind not in ("bpe", "char"):
        raise GPTError(f"the tokenizer is bpe, char or that of a model, not {kind!r}")
    if kind == "bpe":
        tokenizers.check_vocab_size(vocab_size or VOCABULARY)
    # For merges a quarter of the text is enough; of the characters as many as possible are needed.
    wanted = min(max(tokens_wanted * (4 if kind == "char" else 1), SAMPLE[0]), SAMPLE[1])
    texts: list[str] = []
    last = time.monotonic()
    for source in mixture:
        taken, most = 0, int(wanted * source.share) + 1
        for text in source.texts():
            for portion in source.portions(text):
                # Merges are learned from what is trained on; characters also from what is held out, or the validation
                # text of a small corpus would hold unknown ones.
                if kind == "char" or not portion.held:
                    texts.extend(piece.text for piece in pieces(portion, most - taken))
                    taken += min(len(portion.text), most - taken)
            if taken >= most:
                break
            if time.monotonic() - last > 0.1:
                last = time.monotonic()
                yield Progress(f"reading {source.name}", taken, most, "characters")
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
            yield Progress(stage, int(time.monotonic() - begin), None, "s")
            wait([future], timeout=0.1)
        return future.result()
    finally:
        pool.shutdown(wait=False)  # a stop need not wait for it


def _tokenize(source: Source, encode: Callable, writer: Writer) -> Events:
    """Writes one source until it has supplied the tokens it needs or is exhausted."""
    stage = f"tokenizing {source.name}"
    batch: list[Piece] = []
    size = 0
    for piece in source.pieces():
        batch.append(piece)
        size += len(piece.text)
        if size >= BATCH:
            _write(source, batch, encode, writer)
            batch, size = [], 0
            yield Progress(stage, min(source.tokens, source.need), source.need, "tokens")
    _write(source, batch, encode, writer)
    source.settle(writer)
    if source.tokens == 0:
        raise GPTError(f"{source.name} has nothing left to train on once {source.fraction:.0%} is held out")
    yield Progress(stage, source.tokens, source.tokens, "tokens")


def _write(source: Source, batch: list[Piece], encode: Callable, writer: Writer) -> None:
    for piece, ids in zip(batch, encode([piece.text for piece in batch]), strict=True):
        source.write(piece, ids, writer)
