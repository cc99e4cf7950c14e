"""From conversations to the tokens a run is finetuned on: read, rendered, cut by rule, counted, split.

- Over-long conversations are cut at their end, to what a row holds, or refused (`over_long`). One in which nothing is
left
  to learn is refused either way: a row without a target would make the loss 0/0.
- One conversation in twenty is held out, by a hash of what stands before its first answer; of fewer than twenty, none.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from jupyter_gpt.data import conversations as chats
from jupyter_gpt.data import mixture
from jupyter_gpt.data.chat import TRAIN_ON, render_conversations
from jupyter_gpt.data.conversation_tokens import Conversations, Counts
from jupyter_gpt.data.split import MANY, place
from jupyter_gpt.data.tokenizer import delimiter
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.events import Progress

OVER_LONG = ("cut", "refuse")
HELD_OUT = 0.05
HELD_OUT_MOST = 1000  # conversations of a source
UNBOUNDED = 1_000_000  # tokens of a generated source when no length of the run says how many
MARGIN = 1.05  # conversations prepared for each one wanted
BATCH = 256  # conversations rendered at a time
SHOWN = 3  # conversations of a source kept for the eye
HOPELESS = 100  # conversations refused for each one used, at which an endless source is taken to have no more that fit


@dataclass
class Source:
    """One source on its way: what has been tokenized of it, and what was counted."""

    name: str
    weight: float
    share: float
    need: int | None  # tokens; None: all there are
    fraction: float
    reading: chats.Reading = field(default_factory=chats.Reading)
    pieces: list[tuple[list[int], list[bool], bool]] = field(default_factory=list)  # ids, trained, held out
    first: list[dict] = field(default_factory=list)
    cut: int = 0
    refused: int = 0
    longest: int = 0
    tokens: int = 0
    trained: int = 0
    held: int = 0

    @property
    def endless(self) -> bool:
        return self.name in chats.GENERATED

    def take(self, said: chats.Conversation, ids: list[int], trained: list[bool], context: int, over_long: str) -> None:
        """Adds a rendered conversation by the rules."""
        held = place(said.key, self.name) < self.fraction
        if held and self.held == HELD_OUT_MOST:
            return
        length = len(ids)
        self.longest = max(self.longest, length)
        too_long = length > context + 1
        if too_long:
            ids, trained = ids[: context + 1], trained[: context + 1]
        if (too_long and over_long == "refuse") or not any(trained[1:]):
            self.refused += 1
            return
        self.cut += too_long
        self.pieces.append((ids, trained, held))
        self.held += held
        if not held:
            self.tokens += len(ids)
            self.trained += sum(trained[1:])
            if len(self.first) < SHOWN:
                shown = {"source": self.name, "where": said.where, "ids": ids, "trained": trained, "length": length}
                self.first.append(shown)

    def counts(self) -> Counts:
        notes = []
        if self.reading.refused:
            rows = "1 row is" if self.reading.refused == 1 else f"{self.reading.refused:,} rows are"
            notes.append(f"{rows} skipped that cannot be learned from: {self.reading.first_refused}")
        if self.reading.unanswered:
            notes.append(f"{self.reading.unanswered:,} end in a turn without an answer: that turn is left out")
        return Counts(
            self.name,
            self.reading.form,
            self.weight,
            self.share,
            len(self.pieces),
            self.cut,
            self.refused + self.reading.refused,
            self.tokens,
            self.trained,
            self.held,
            self.endless,
            tuple(notes),
        )


def prepare(
    weights: Mapping[str, float],
    tokenizer,
    folder: str | Path,
    *,
    context: int,
    tokens_wanted: int | None = None,
    seed: int = 0,
    variables: Mapping | None = None,
    cell: str | None = None,
    train_on: str = "assistant",
    over_long: str = "cut",
    held_out: float | None = None,
    bad_rows: str | None = None,
) -> Generator[dict, None, Conversations]:
    """Tokenizes a mixture of conversations into `folder`. Yields progress events; returns the `Conversations`.

    weights: sampling proportions by source; a source makes up its share of the tokens. tokenizer: with a chat template,
    see `chat.with_template`. context: T; a row holds T+1 tokens. tokens_wanted: how many the run will see; a source
    with fewer is repeated, one with more is read only as far as needed; None takes all of every source that ends. cell:
    the
    text of the source `conversations.CELL`. train_on: "assistant" or "all". over_long: "cut" or "refuse". held_out: the
    fraction for validation, in place of one in twenty. bad_rows: "refuse" or "skip", see `conversations.read`. Raises
    GPTError for whatever a user can get wrong.
    """
    if train_on not in TRAIN_ON:
        raise GPTError(f"--train-on is assistant or all, not {train_on!r}")
    if over_long not in OVER_LONG:
        raise GPTError(f"--over-long is cut or refuse, not {over_long!r}")
    if held_out is not None and not 0 <= held_out < 1:
        raise GPTError(f"held_out is the fraction kept for validation, at least 0 and below 1, not {held_out}")
    weights = mixture.check(weights)
    total, found = sum(weights.values()), []
    for name, weight in weights.items():
        yield Progress(f"looking at {name}", 0, None, "conversations")
        chats.check(name, variables, cell, bad_rows)
        if weight > 0:
            share = weight / total
            wanted = UNBOUNDED if tokens_wanted is None and name in chats.GENERATED else tokens_wanted
            need = None if wanted is None else int(wanted * share * MARGIN) + context + 1
            some = () if name in chats.GENERATED else chats.read(name, variables, seed, cell=cell, bad_rows=bad_rows)
            many = name in chats.GENERATED or len(list(islice(some, MANY))) == MANY
            fraction = (HELD_OUT if many else 0.0) if held_out is None else held_out
            found.append(Source(name, weight, share, need, fraction))
    for source in found:
        said = chats.read(source.name, variables, seed, source.reading, cell, bad_rows)
        skip = chats.skips(source.name, bad_rows)
        yield from _tokenize(source, said, tokenizer, context, train_on, over_long, skip)
    result = _joined(found, delimiter(tokenizer))
    result.save(Path(folder))
    return result


def _tokenize(
    source: Source,
    said: Iterator[chats.Conversation],
    tokenizer,
    context: int,
    train_on: str,
    over_long: str,
    skip: bool,
) -> Iterator[Progress]:
    """Takes conversations until there are enough tokens, none left, or hardly one that fits; with `skip` leaves out
    those
    that the template refuses."""
    stage = f"reading {source.name}"
    while batch := list(islice(said, BATCH)):
        for conversation, tokens in zip(batch, _rendered(tokenizer, batch, train_on), strict=True):
            if isinstance(tokens, GPTError):
                if not skip:
                    raise tokens
                source.reading.refuse(tokens)
            elif source.need is None or source.tokens < source.need:
                source.take(conversation, *tokens, context, over_long)
        yield Progress(stage, min(source.tokens, source.need or source.tokens), source.need, "tokens")
        enough = source.need is not None and source.tokens >= source.need
        if enough or (source.endless and source.refused > HOPELESS * (len(source.pieces) + 1)):
            break
    if not source.tokens:
        if source.refused and source.longest > context + 1:
            raise GPTError(
                f"no conversation of {source.name} fits: longest is {source.longest:,} tokens, a row {context + 1:,}"
                + (
                    " and --over-long refuse leaves out what is longer"
                    if over_long == "refuse"
                    else ", and no answer begins there"
                )
            )
        raise GPTError(
            f"{source.name} has no conversation to train on"
            + (f": {source.reading.first_refused}" if source.reading.refused else "")
        )


def _rendered(
    tokenizer, batch: list[chats.Conversation], train_on: str
) -> list[tuple[list[int], list[bool]] | GPTError]:
    """The batch in tokens; for what a template refuses the reason, with its place."""
    try:
        return render_conversations(
            tokenizer, [said.messages for said in batch], train_on, [said.tools for said in batch]
        )
    except GPTError as error:  # one of them: find it
        if len(batch) == 1:
            return [GPTError(f"{batch[0].where}: {error}")]
        return [found for said in batch for found in _rendered(tokenizer, [said], train_on)]


def _joined(found: list[Source], pad: int) -> Conversations:
    import numpy as np

    pieces = [piece for source in found for piece in source.pieces]
    ids = [np.array(piece[0], np.int32) for piece in pieces]
    trained = [np.array(piece[1], bool) for piece in pieces]
    return Conversations(
        tokens=np.concatenate(ids),
        trained=np.concatenate(trained),
        offsets=np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64),
        source=np.repeat(np.arange(len(found), dtype=np.int32), [len(source.pieces) for source in found]),
        held_out=np.array([piece[2] for piece in pieces], bool),
        names=[source.name for source in found],
        weights=[source.weight for source in found],
        pad=pad,
        counts=[source.counts() for source in found],
        first=[shown for source in found for shown in source.first],
    )
