"""Rankings from elsewhere: a file of rankings as they are saved here, or rows of `chosen` and `rejected`.

{"prompt": "Why?", "chosen": "So.", "rejected": "No."}                 texts
{"prompt": [{"role": "user", …}], "chosen": [{…}], "rejected": [{…}]}   messages
{"chosen": [{"role": "user", …}, {…}], "rejected": [{…}, {…}]}          whole conversations: what they share is asked
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from jupyter_gpt.data import conversation_formats as formats
from jupyter_gpt.data import files, hub, sources
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.rankings import Ranking, from_line, scan

SUPPORTED = "rankings and preferences are rows of .jsonl, .json, .csv, .tsv or .parquet"


class Imported(NamedTuple):
    """The rankings, where they are from, and a note where the last line of the file is incomplete."""

    rankings: list[Ranking]
    source: str
    note: str | None = None


def read(given: Any) -> Imported:
    """The rankings of a file, of a dataset of the hub (`hf:…`), or of a list or table of rows.

    Raises GPTError, one line, where there are none, and for a row that is none.
    """
    if not isinstance(given, str | Path):
        rows = list(sources.rows_of(given, "--rankings", "a list of rows"))
        found = [preference(row, f"row {number} of the rankings", "rows") for number, row in enumerate(rows)]
        digest = hashlib.sha256(repr([(each.prompt, each.completions) for each in found]).encode()).hexdigest()
        return Imported(some(found, "--rankings"), f"rows {digest[:16]}")
    source = str(given)
    if source.startswith("hf:"):
        found = [preference(row, where, source) for where, row in hub.rows(source)]
        return Imported(some(found, source), source)
    path = Path(source).expanduser()
    if not path.is_file():
        raise GPTError(f"--rankings {source}: there is no such file")
    if path.suffix.lower() not in files.ROW_SUFFIXES:
        raise GPTError(f"--rankings {source}: {SUPPORTED}")
    if path.suffix.lower() == ".jsonl":  # its last line may be incomplete
        found, torn = scan(path, path.stem, lambda line: from_json(line, path))
        note = f"{source} was cut off in the middle of its line {torn}: the {len(found)} before it were taken"
        return Imported(some(found, source), source, note if torn else None)
    found = [preference(row, where, path.stem) for where, row in files.rows(path)]
    return Imported(some(found, source), source)


def some(found: list[Ranking], source: str) -> list[Ranking]:
    if not found:
        raise GPTError(f"{source} has no complete ranking")
    return found


def from_json(line: str, path: Path) -> Ranking:
    """A line of a file. Raises GPTError, or another error for one that is no JSON."""
    values = json.loads(line.removeprefix("\ufeff"))
    if isinstance(values, Mapping) and "order" in values:
        return from_line(line)
    return preference(values, f"a row of {path.name}", path.stem)


def preference(row: object, where: str, by: str) -> Ranking:
    """A row of `chosen` and `rejected`. Raises GPTError."""
    if isinstance(row, GPTError):
        raise row
    if not isinstance(row, Mapping) or "chosen" not in row or "rejected" not in row:
        has = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise GPTError(f"{where} has no chosen and rejected; it has {has:.120}: columns are renamed to these")
    prompt, better, worse = row.get("prompt"), row["chosen"], row["rejected"]
    if not isinstance(better, str) and not isinstance(worse, str):
        both = [formats.messages_of_turns(each, where) for each in (better, worse)]
        if isinstance(prompt, str) or not formats.has(row, "prompt"):
            shared = list(takewhile(lambda two: two[0] == two[1], zip(*both, strict=False)))
            count = min(len(shared), *(len(each) - 1 for each in both))
            prompt, both = both[0][:count] or prompt, [each[count:] for each in both]
        better, worse = both
    asked = question(prompt, row, where)
    texts = [answer(each, name, where) for each, name in ((better, "chosen"), (worse, "rejected"))]
    completions = tuple({"model": "", "text": each, "seed": 0} for each in texts)
    return Ranking(asked, completions, ((0,), (1,)), (0, 1), by)


def question(prompt: Any, row: Mapping, where: str) -> str:
    """The text of the one turn that is answered."""
    turns = [] if prompt is None or prompt != prompt else prompt
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    turns = formats.messages_of_turns(turns, where)
    if formats.has(row, "system") or any(turn["role"] == "system" for turn in turns):
        raise GPTError(f"{where} has a system prompt: leave it out of the rows, and give it to %%rlhf as --system")
    if not turns or not turns[0]["content"].strip():
        raise GPTError(f"{where} has no prompt")
    if len(turns) > 1:
        raise GPTError(f"{where} has a prompt of {len(turns)} turns: rankings are of prompts of one")
    return turns[0]["content"]


def answer(value: Any, name: str, where: str) -> str:
    """A completion: a text, or one message."""
    if isinstance(value, str):
        return value
    turns: Sequence[Mapping] = formats.messages_of_turns(value, where) if value is not None and value == value else []
    if len(turns) != 1:
        raise GPTError(f"{where}: {name} is a text or one message after the prompt, and not {len(turns)} messages")
    return turns[0]["content"]
