"""Conversations: what a model is finetuned on, by the name a user writes in a cell.

    stories-qa, sums-cot     generated, endless, seeded
    ./mine.jsonl             files, globs, folders: .jsonl, .json, .csv, .tsv, .parquet, .txt and .md
    hf:owner/name[:column]   a dataset of the Hugging Face hub, streamed (the extra `data`)
    $chats                   a variable of the notebook: a list of rows, of pairs or of messages, or a DataFrame
    the cell itself          `user:` and `assistant:` turns, conversations separated by `---`

The form of the rows (`conversation_forms.py`) is told by the first and is one in a file. A row that cannot be learned
from is an error that names its line, since whoever wrote the file can mend it; of a dataset of the hub, which nobody
here
can mend, it is skipped and counted. `bad_rows` says otherwise: "refuse" or "skip".
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jupyter_gpt.data import conversation_files as files
from jupyter_gpt.data import sources
from jupyter_gpt.data.conversation_forms import WANTED, checked, form_of, messages_of, tools_of
from jupyter_gpt.errors import GPTError

GENERATED = {"stories-qa": "stories_qa", "sums-cot": "sums_cot"}  # source: module
CELL = "the cell"  # the name of the source that a cell's own body is


@dataclass(frozen=True)
class Conversation:
    """messages: role and content, in an order that `checked` lets pass. where: the place it stands, for a person.

    key: what decides whether it is held out; conversations of one key stay on one side. tools: the functions that may
    be called in it.
    """

    messages: list[dict]
    where: str
    key: str
    tools: list[dict] | None = None


@dataclass
class Reading:
    """What is found out about a source while it is read: the forms met, and what was left out of it."""

    forms: list[str] = field(default_factory=list)
    refused: int = 0
    first_refused: str = ""  # why the first one was
    unanswered: int = 0  # conversations whose last turn, without an answer, was left out

    @property
    def form(self) -> str:
        return " + ".join(self.forms)

    def refuse(self, error: GPTError) -> None:
        """Count a row that is skipped, and keep the first reason."""
        self.refused += 1
        self.first_refused = self.first_refused or str(error)


def parse(text: str, bad_rows: str | None = None) -> dict[str, float] | str:
    """What a cell's body is: a mixture {source: weight}, or, when it holds conversations itself, the text of them.

    Raises GPTError for a body that is neither.
    """
    from jupyter_gpt.data import mixture

    if files.is_body(text):
        if not list(read(CELL, cell=text, bad_rows=bad_rows)):  # every fault of it is told before any work starts
            raise GPTError("the cell has no conversation in it: write turns of user: and assistant:")
        return text
    try:
        return mixture.parse(text)
    except GPTError as error:
        if any(files.TURN.match(line) for line in text.splitlines()):
            first = text.strip().splitlines()[0]
            raise GPTError(
                f"the cell begins with {first[:40]!r}: a conversation begins with `user:` or `system:`"
            ) from None
        raise error from None


def read(
    source: str,
    variables: Mapping | None = None,
    seed: int = 0,
    reading: Reading | None = None,
    cell: str | None = None,
    bad_rows: str | None = None,
) -> Iterator[Conversation]:
    """The conversations of `source`, from the start at each call; endless for those in GENERATED.

    reading: filled on the way. cell: the text behind the source CELL. Raises GPTError, one line with the place, for
    what cannot be read or learned from, unless `bad_rows` has it skipped.
    """
    reading = Reading() if reading is None else reading
    skip = skips(source, bad_rows)
    if source in GENERATED:
        reading.forms[:] = ["generated"]
        return importlib.import_module(f"jupyter_gpt.data.{GENERATED[source]}").conversations(seed)
    if source == CELL:
        return _conversations([("turns", files.body(cell or "", CELL))], reading, skip)
    if source.startswith("$"):
        return _conversations([(None, _variable(source, variables))], reading, skip)
    if source.startswith("hf:"):
        return _conversations([(None, _hub(source))], reading, skip)
    found = sources.paths(source, files.SUFFIXES, files.SUPPORTED, sorted(GENERATED))
    form = {".txt": "turns", ".md": "turns"}
    return _conversations([(form.get(path.suffix.lower()), files.rows(path)) for path in found], reading, skip)


def skips(source: str, bad_rows: str | None) -> bool:
    """Whether a row of `source` that cannot be learned from is skipped."""
    return bad_rows == "skip" or (bad_rows is None and source.startswith("hf:"))


def check(source: str, variables: Mapping | None = None, cell: str | None = None, bad_rows: str | None = None) -> None:
    """Raises GPTError if `source` is unknown, missing or empty, or its first conversation cannot be learned from."""
    reading = Reading()
    if source not in GENERATED and next(iter(read(source, variables, 0, reading, cell, bad_rows)), None) is None:
        why = f" to learn from: {reading.first_refused}" if reading.refused else " in it"
        raise GPTError(f"{source} has no conversation{why}")


def _conversations(
    groups: Iterable[tuple[str | None, Iterable[files.Row]]], reading: Reading, skip: bool
) -> Iterator[Conversation]:
    """Every group of rows is of one form; with `skip` what cannot be learned from is left out and counted."""
    for known, rows in groups:
        form = known
        for where, row in rows:
            try:
                if isinstance(row, GPTError):
                    raise row
                found = form_of(row) if known is None else known
                if found is None:
                    raise GPTError(f"{where} is no conversation: it {_has(row)}; wanted are {WANTED}")
                if form not in (None, found):
                    raise GPTError(f"{where} is written as {found}, the rows before it as {form}: one form a file")
                form = found
                if form not in reading.forms:
                    reading.forms.append(form)
                messages = row if known else messages_of(row, form, where)
                messages, unanswered = checked(messages, where)
                tools = tools_of(row, where)
            except GPTError as error:
                if not skip:
                    raise
                reading.refuse(error)
                continue
            reading.unanswered += unanswered
            yield Conversation(messages, where, key_of(messages), tools)


def key_of(messages: list[dict]) -> str:
    """All that stands before the first answer: the same question is never on both sides of the split."""
    return "\n".join(
        m["content"] for m in messages[: next(i for i, m in enumerate(messages) if m["role"] == "assistant")]
    )


def _has(row: object) -> str:
    if isinstance(row, Mapping):
        return f"has the fields {', '.join(map(str, row))}" if row else "is an empty row"
    return f"is a {type(row).__name__}"


def _variable(source: str, variables: Mapping | None) -> Iterator[files.Row]:
    value = sources.value_of(source, variables)
    if hasattr(value, "iloc") and hasattr(value, "columns"):  # a DataFrame
        return ((f"row {number} of {source}", row) for number, row in enumerate(value.to_dict("records")))
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise GPTError(
            f"{source} is a {type(value).__name__}; it may be a DataFrame or a list of rows such as "
            '{"prompt": …, "completion": …}, of (question, answer) pairs, or of lists of messages'
        )
    return ((f"item {number} of {source}", row) for number, row in enumerate(value))


def _hub(source: str) -> Iterator[files.Row]:
    from jupyter_gpt.data import hub

    return hub.rows(source)
