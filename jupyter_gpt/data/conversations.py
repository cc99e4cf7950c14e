"""Conversations: what a model is finetuned on, by the source's name in a cell.

    stories-qa, sums-cot     generated, endless, seeded
    ./mine.jsonl             files, globs, folders: .jsonl, .json, .csv, .tsv, .parquet, .txt and .md
    hf:owner/name[/config][@split][:column]   a dataset of the Hugging Face hub, streamed (the extra `data`)
    $chats                   a variable of the notebook: a list of rows, of pairs or of messages, or a DataFrame
    the cell itself          `user:` and `assistant:` turns, conversations separated by `---`

All rows of a file have the format of the first (`conversation_formats.py`). An invalid row is an error that names its
line; in a dataset of the hub, which the user cannot correct, it is skipped and counted. `bad_rows` says otherwise:
"refuse" or "skip".
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jupyter_gpt.data import conversation_formats as formats
from jupyter_gpt.data import files, hub, mixture, sources
from jupyter_gpt.errors import GPTError

GENERATED = {"stories-qa": "stories_qa", "sums-cot": "sums"}  # source: module
CELL = "the cell"  # the source name of a cell's own body
SUFFIXES = (*files.ROW_SUFFIXES, *files.TEXT)
EXPECTED = 'a list of rows such as {"prompt": …, "completion": …}, of (question, answer) pairs or of messages'
SUPPORTED = "conversations are .jsonl, .json, .csv, .tsv, .parquet, or .txt and .md with turns `user:`, `assistant:`"


@dataclass(frozen=True)
class Conversation:
    """messages: role and content, in an order that `formats.trainable` accepts. where: its place, for messages to the
    user. key: its hash decides whether it is held out. tools: the functions that may be called in it.
    """

    messages: list[dict]
    where: str
    key: str
    tools: list[dict] | None = None


@dataclass
class Reading:
    """What is counted while a source is read."""

    forms: list[str] = field(default_factory=list)  # formats
    refused: int = 0  # rows skipped
    first_refused: str = ""  # the reason of the first
    reasons: dict[str, str] = field(default_factory=dict)  # the first message of each reason
    unanswered: int = 0  # conversations whose last turn, without an answer, was left out

    @property
    def form(self) -> str:
        return " + ".join(self.forms)

    def refuse(self, error: GPTError) -> None:
        self.refused += 1
        self.first_refused = self.first_refused or str(error)
        self.reasons.setdefault(re.sub(r"\d+", "", str(error)), str(error))


def parse(text: str, bad_rows: str | None = None) -> dict[str, float] | str:
    """A cell's body: a mixture {source: weight}, or the body itself if it is conversations."""
    if formats.mark_of(text):
        if not list(read(CELL, cell=text, bad_rows=bad_rows)):  # raises every error before any work starts
            raise GPTError("the cell has no conversation in it: write turns of user: and assistant:")
        return text
    try:
        return mixture.parse(text)
    except GPTError as error:
        if any(map(formats.mark_of, text.splitlines())):
            first = text.strip().splitlines()[0]
            raise GPTError(
                f"the cell begins with {first[:40]!r}: a conversation begins with `user:` or `system:`"
            ) from None
        raise GPTError(f"{error}, or a conversation, in lines `user: …` and `assistant: …`") from None


def read(
    source: str,
    variables: Mapping | None = None,
    seed: int = 0,
    reading: Reading | None = None,
    cell: str | None = None,
    bad_rows: str | None = None,
) -> Iterator[Conversation]:
    """The conversations of `source`, from the start at each call; endless for those in GENERATED.

    reading: filled on the way. cell: the text of the source CELL. Raises GPTError, one line with the place, for what
    cannot be read or trained on, unless `bad_rows` skips it.
    """
    reading = Reading() if reading is None else reading
    if source in GENERATED:
        reading.forms[:] = ["generated"]
        module = importlib.import_module(f"jupyter_gpt.data.{GENERATED[source]}")
        return (
            Conversation(messages, f"{source} {index}", key)
            for index, (messages, key) in enumerate(module.conversations(seed))
        )
    if source == CELL:
        groups = [("turns", formats.read_turns((cell or "").split("\n"), CELL))]
    elif source.startswith("$"):
        rows = sources.rows_of(sources.value_of(source, variables), source, EXPECTED)
        groups = [(None, ((f"item {number} of {source}", row) for number, row in enumerate(rows)))]
    elif source.startswith("hf:"):
        groups = [(None, hub.rows(source))]
    else:
        paths = sources.paths(source, SUFFIXES, SUPPORTED, sorted(GENERATED))
        groups = (
            ("turns", formats.read_turns(files.lines(path), str(path)))
            if path.suffix.lower() in files.TEXT
            else (None, files.rows(path))
            for path in paths
        )
    return _conversations(groups, reading, skips(source, bad_rows))


def skips(source: str, bad_rows: str | None) -> bool:
    """Whether an invalid row of `source` is skipped."""
    return bad_rows == "skip" or (bad_rows is None and source.startswith("hf:"))


def check(source: str, variables: Mapping | None = None, cell: str | None = None, bad_rows: str | None = None) -> None:
    """Raises GPTError if `source` is unknown, missing or empty, or its first conversation cannot be trained on."""
    reading = Reading()
    if source not in GENERATED and next(iter(read(source, variables, 0, reading, cell, bad_rows)), None) is None:
        why = f" to train on: {reading.first_refused}" if reading.refused else " in it"
        raise GPTError(f"{source} has no conversation{why}")


def _conversations(
    groups: Iterable[tuple[str | None, Iterable[files.Row]]], reading: Reading, skip: bool
) -> Iterator[Conversation]:
    """The conversations of groups of rows, each of one format; with `skip`, invalid rows are skipped and counted."""
    for known, rows in groups:
        format = known
        for where, row in rows:
            try:
                if isinstance(row, GPTError):
                    raise row
                own = known or formats.format_of(row)
                if own is None:
                    raise GPTError(
                        f"{where} is not a conversation: it {_fields(row)}; expected {formats.SUPPORTED_ROWS}"
                    )
                if format not in (None, own):
                    raise GPTError(f"{where} is in the format {own}, the rows before it in {format}: use one per file")
                format = own
                if format not in reading.forms:
                    reading.forms.append(format)
                messages = row if known else formats.messages_of(row, format, where)
                messages, unanswered = formats.trainable(messages, where)
                tools = formats.tools_of(row, where)
            except GPTError as error:
                if not skip:
                    raise
                reading.refuse(error)
                continue
            reading.unanswered += unanswered
            yield Conversation(messages, where, key_of(messages), tools)


def key_of(messages: list[dict]) -> str:
    """All content before the first answer: the same question is never on both sides of the split."""
    answer = next(i for i, m in enumerate(messages) if m["role"] == "assistant")
    return "\n".join(m["content"] for m in messages[:answer])


def _fields(row: object) -> str:
    if isinstance(row, Mapping):
        return f"has the fields {', '.join(map(str, row))}" if row else "is an empty row"
    return f"is a {type(row).__name__}"
