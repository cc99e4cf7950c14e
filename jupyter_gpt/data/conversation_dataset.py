"""Tokenized conversations: read, rendered by the chat template, truncated, counted, split, and written one by one.

- Over-long conversations are truncated at their end to the length of a row, or left out (`over_long`). One without a
  trained token is left out: a row without a target would make the loss 0/0.
- One conversation in twenty is held out, by a hash of the text before its first answer; of fewer than twenty, none.

folder/tokens.npy    (N,)   int32: all conversations end to end
folder/trained.npy   (N,)   bool: the tokens that are trained on (the assistant's, or all)
folder/offsets.npy   (C+1,) int64: where each conversation begins
folder/source.npy    (C,)   int32, an index into `names`
folder/held_out.npy  (C,)   bool: for validation only
folder/conversations.json   counts of each source; written last, so where it exists the rest is complete
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_gpt import store
from jupyter_gpt.data import conversations as chats
from jupyter_gpt.data import mixture
from jupyter_gpt.data.chat import reasoning_written, render_conversations
from jupyter_gpt.data.conversation_formats import REASONING
from jupyter_gpt.data.documents import ArrayWriter, write_array
from jupyter_gpt.data.split import MANY, place
from jupyter_gpt.data.tokenizer import delimiter
from jupyter_gpt.errors import GPTError, reading
from jupyter_gpt.runs.events import Progress

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
ARRAYS = ("tokens", "trained", "offsets", "source", "held_out")
HELD_OUT = 0.05
HELD_OUT_MOST = 1000  # conversations of a source
DEFAULT_TOKENS = 1_000_000  # of a generated source when the length of the run is unknown
MARGIN = 1.05  # tokens prepared for each one needed
BATCH = 256  # conversations rendered at a time
SHOWN = 3  # conversations of a source kept for display
REASONS = 3  # for which rows of a source were skipped, told by their first row
MAX_REFUSED = 100  # conversations left out for each one used, at which reading an endless source ends


@dataclass
class Counts:
    """One source in the table.

    form: the formats of its rows (`messages`, `alpaca`, …). conversations: used, held-out ones included. cut: of these,
    truncated to the context. refused: left out. tokens, trained: of the training conversations. held_out: conversations
    for validation. endless: generated. exhausted: it has no more, as far as that is known. notes: for the reader, one
    line each.
    """

    source: str
    weight: float
    share: float
    form: str = ""
    conversations: int = 0
    cut: int = 0
    refused: int = 0
    tokens: int = 0
    trained: int = 0
    held_out: int = 0
    endless: bool = False
    exhausted: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Conversations:
    """Tokenized conversations of several sources, each with a token that is trained on.

    first: the first conversations of each source for display: dicts of `source`, `where`, `ids`, `trained` and
    `length`, its tokens before truncation.
    """

    tokens: np.ndarray  # (N,) int32
    trained: np.ndarray  # (N,) bool
    offsets: np.ndarray  # (C+1,) int64
    source: np.ndarray  # (C,) index into names
    held_out: np.ndarray  # (C,) bool
    names: list[str]
    weights: list[float]
    pad: int
    counts: list[Counts] = field(default_factory=list)
    first: list[dict] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, c: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of conversation c and which of them are trained on."""
        where = slice(self.offsets[c], self.offsets[c + 1])
        return self.tokens[where], self.trained[where]

    def lengths(self) -> np.ndarray:
        """(C,) tokens of each conversation."""
        return self.offsets[1:] - self.offsets[:-1]

    def training(self, source: int) -> np.ndarray:
        """The indices of the conversations of `source` that are trained on."""
        return ((self.source == source) & ~self.held_out).nonzero()[0]

    @classmethod
    def open(cls, folder: Path) -> Conversations:
        """What `prepare` wrote to `folder`, memory-mapped. GPTError when it is incomplete or damaged."""
        import json

        import numpy as np

        if not (folder / "conversations.json").exists():
            raise GPTError(f"there are no tokenized conversations in {folder}: preparing them did not finish")
        with reading(f"the tokenized data in {folder}", "--overwrite starts the run again"):
            details = json.loads((folder / "conversations.json").read_text("utf-8"))
            if details.pop("format", None) != FORMAT:
                raise GPTError(f"the conversations in {folder} were written by another version of jupyter_gpt")
            mapped = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
            arrays = {name: np.asarray(each) for name, each in mapped.items()}  # slicing a memmap costs three times
            counts = [Counts(**count | {"notes": tuple(count["notes"])}) for count in details.pop("counts")]
            return cls(**arrays, **details, counts=counts)


@dataclass
class Source:
    """One source while it is tokenized: its conversations, and their counts."""

    counts: Counts
    need: int | None  # tokens; None: all there are
    fraction: float  # held out
    reading: chats.Reading = field(default_factory=chats.Reading)
    first: list[dict] = field(default_factory=list)
    longest: int = 0
    unwritten: int = 0  # conversations whose reasoning the template does not write

    @property
    def complete(self) -> bool:
        return self.need is not None and self.counts.tokens >= self.need

    def add(
        self,
        conversation: chats.Conversation,
        ids: list[int],
        trained: list[bool],
        context: int,
        over_long: str,
        writer: Writer,
    ) -> None:
        """Writes a rendered conversation, truncated or left out by the rules above."""
        counts, length = self.counts, len(ids)
        held_out = place(conversation.key, counts.source) < self.fraction
        if held_out and counts.held_out == HELD_OUT_MOST:
            return
        self.longest = max(self.longest, length)
        too_long = length > context + 1
        if too_long:
            ids, trained = ids[: context + 1], trained[: context + 1]
        if (too_long and over_long == "refuse") or not any(trained[1:]):
            counts.refused += 1
            return
        counts.cut += too_long
        counts.held_out += held_out
        counts.conversations += 1
        writer.add(ids, trained, held_out)
        if not held_out:
            counts.tokens += len(ids)
            counts.trained += sum(trained[1:])
            if len(self.first) < SHOWN:
                shown = {"source": counts.source, "where": conversation.where, "ids": ids, "trained": trained}
                self.first.append(shown | {"length": length})

    def finish(self, context: int, over_long: str) -> None:
        """Completes the counts. Raises GPTError where nothing can be trained on."""
        counts, reading = self.counts, self.reading
        if not counts.tokens and counts.refused and self.longest > context + 1:
            why = ", and no answer begins there"
            if over_long == "refuse":
                why = " and --over-long refuse leaves out what is longer"
            longest, most = f"longest is {self.longest:,} tokens", f"a row {context + 1:,}"
            raise GPTError(f"no conversation of {counts.source} fits: {longest}, {most}{why}")
        if not counts.tokens:
            why = f": {reading.first_refused}" if reading.refused else ""
            raise GPTError(f"{counts.source} has no conversation to train on{why}")
        if reading.refused:
            rows = "1 row is" if reading.refused == 1 else f"{reading.refused:,} rows are"
            why = "; ".join(list(reading.reasons.values())[:REASONS])
            counts.notes += (f"{rows} skipped that cannot be trained on: {why}",)
        if reading.unanswered:
            counts.notes += (f"{reading.unanswered:,} end in a turn without an answer: that turn is left out",)
        if self.unwritten:
            counts.notes += (
                f"{self.unwritten:,} have reasoning that this chat template does not write: it is left out",
            )
        counts.refused += reading.refused
        counts.form = reading.form


class Writer:
    """Writes conversations one by one, so that they are never all in memory; they can be opened only after `finish`.
    Call `close` in any case."""

    def __init__(self, folder: Path):
        import numpy as np

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "conversations.json").unlink(missing_ok=True)
        self.folder = folder
        self.tokens = ArrayWriter(folder / "tokens.npy", np.dtype(np.int32))
        self.trained = ArrayWriter(folder / "trained.npy", np.dtype(bool))
        self.offsets, self.source, self.held_out = array("q", [0]), array("i"), array("b")
        self.number = 0  # of the source that is written

    def add(self, ids: list[int], trained: list[bool], held_out: bool) -> None:
        self.tokens.extend(ids)
        self.trained.extend(trained)
        self.offsets.append(self.tokens.count)
        self.source.append(self.number)
        self.held_out.append(held_out)

    def finish(self, sources: list[Source], pad: int) -> Conversations:
        """Completes the files under their final names and opens them."""
        import numpy as np

        self.tokens.finish()
        self.trained.finish()
        write_array(self.folder / "offsets.npy", np.array(self.offsets, np.int64))
        write_array(self.folder / "source.npy", np.array(self.source, np.int32))
        write_array(self.folder / "held_out.npy", np.array(self.held_out, bool))
        details = {
            "names": [source.counts.source for source in sources],
            "weights": [source.counts.weight for source in sources],
            "pad": pad,
            "first": [shown for source in sources for shown in source.first],
            "counts": [asdict(source.counts) for source in sources],
        }
        store.write_json(self.folder / "conversations.json", {"format": FORMAT, **details})
        return Conversations.open(self.folder)

    def close(self) -> None:
        """Closes the files; without a `finish` before it, removes what was written."""
        self.tokens.close()
        self.trained.close()


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
) -> Generator[Progress, None, Conversations]:
    """Tokenizes a mixture of conversations into `folder`. Yields progress events; returns the `Conversations`.

    weights: sampling proportions by source; a source makes up its share of the tokens. tokenizer: with a chat template,
    see `chat.with_template`. context: T; a row holds T+1 tokens. tokens_wanted: how many the run will see; a source
    with fewer is repeated, one with more is read only as far as needed; None takes all of every finite source. cell:
    the text of the source `conversations.CELL`. train_on: "assistant" or "all". over_long: "cut" or "refuse". held_out:
    the fraction for validation, in place of one in twenty. bad_rows: "refuse" or "skip", see `conversations.read`.
    Raises GPTError for whatever a user can get wrong.
    """
    weights = mixture.check(weights)
    total, tokenized = sum(weights.values()), []
    for name, weight in weights.items():
        yield Progress(f"looking at {name}", 0, None, "conversations")
        chats.check(name, variables, cell, bad_rows)
        if weight > 0:
            share, endless = weight / total, name in chats.GENERATED
            wanted = DEFAULT_TOKENS if tokens_wanted is None and endless else tokens_wanted
            need = None if wanted is None else int(wanted * share * MARGIN) + context + 1
            some = () if endless else islice(chats.read(name, variables, seed, cell=cell, bad_rows=bad_rows), MANY)
            default = HELD_OUT if endless or len(list(some)) == MANY else 0.0
            counts = Counts(name, weight, share, endless=endless)
            tokenized.append(Source(counts, need, default if held_out is None else held_out))
    written, writer = reasoning_written(tokenizer), Writer(Path(folder))
    try:
        for number, source in enumerate(tokenized):
            name, counts, writer.number = source.counts.source, source.counts, number
            conversations = chats.read(name, variables, seed, source.reading, cell, bad_rows)
            while batch := list(islice(conversations, BATCH)):
                for conversation, tokens in zip(batch, _render(tokenizer, batch, train_on), strict=True):
                    if not isinstance(tokens, GPTError):
                        if not source.complete:
                            source.unwritten += reasons(conversation, written)
                            source.add(conversation, *tokens, context, over_long, writer)
                    elif chats.skips(name, bad_rows):
                        source.reading.refuse(tokens)
                    else:
                        raise tokens
                done = min(counts.tokens, source.need or counts.tokens)
                yield Progress(f"reading {name}", done, source.need, "tokens")
                if source.complete or (counts.endless and counts.refused > MAX_REFUSED * (counts.conversations + 1)):
                    break  # enough, or hardly one of an endless source fits
            counts.exhausted = not source.complete
            source.finish(context, over_long)
        return writer.finish(tokenized, delimiter(tokenizer))
    finally:
        writer.close()


def reasons(conversation: chats.Conversation, written: frozenset[str]) -> bool:
    """Whether it has reasoning that is not `written`."""
    return any(key in message and key not in written for message in conversation.messages for key in REASONING)


def _render(tokenizer, batch: list[chats.Conversation], train_on: str) -> list[tuple[list[int], list[bool]] | GPTError]:
    """The ids and mask of each conversation; the error, with its place, for one that the template rejects."""
    try:
        return render_conversations(tokenizer, [c.messages for c in batch], train_on, [c.tools for c in batch])
    except GPTError as error:  # one of them: find it
        if len(batch) == 1:
            return [GPTError(f"{batch[0].where}: {error}")]
        return [result for conversation in batch for result in _render(tokenizer, [conversation], train_on)]
