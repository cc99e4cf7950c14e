r"""Rankings from elsewhere: a file of rankings as they are saved here, or rows of `chosen` and `rejected`.

{"prompt": "Why?", "chosen": "So.", "rejected": "No."}                 texts
{"prompt": [{"role": "user", …}], "chosen": [{…}], "rejected": [{…}]}   messages, also of several turns
{"chosen": [{"role": "user", …}, {…}], "rejected": [{…}, {…}]}          whole conversations: what they share is asked
{"chosen": "\n\nHuman: …\n\nAssistant: …", "rejected": "…"}             the same as text, as HH-RLHF has it

A system prompt is the first message, or the column `system`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from jupyter_gpt.data import conversation_formats as formats
from jupyter_gpt.data import files, hub, sources
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.rankings import Ranking, from_line, scan
from jupyter_gpt.stages.rl_rows import spelled, turns_of

SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
SUPPORTED = "rankings and preferences are rows of .jsonl, .json, .csv, .tsv or .parquet"


class Imported(NamedTuple):
    """The rankings, where they are from, and a note where the last line of a file is incomplete or rows of the hub were
    left out."""

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
        return of_hub(source)
    path = Path(source).expanduser()
    if not path.is_file():
        raise GPTError(f"--rankings {source}: there is no such file")
    if path.suffix.lower() not in files.ROW_SUFFIXES:
        raise GPTError(f"--rankings {source}: {SUPPORTED}")
    if path.suffix.lower() == ".jsonl":  # its last line may be incomplete
        found, torn = scan(path, path.stem, lambda line, number: from_json(line, number, path))
        note = f"{source} was cut off in the middle of its line {torn}: the {len(found)} before it were taken"
        return Imported(some(found, source), source, note if torn else None)
    found = [preference(row, where, path.stem) for where, row in files.rows(path)]
    return Imported(some(found, source), source)


def of_hub(source: str) -> Imported:
    """Those of a dataset of the hub. Rows that are none, which the user cannot correct, are left out, with a note."""
    found, refused, first = [], 0, ""
    for where, row in hub.rows(source):
        columns_of(row, where)
        try:
            found.append(preference(row, where, source))
        except GPTError as error:
            refused, first = refused + 1, first or str(error)
    if refused and not found:
        raise GPTError(first)
    note = f"{refused:,} row{'s were' if refused > 1 else ' was'} left out: {first}"
    return Imported(some(found, source), source, note if refused else None)


def some(found: list[Ranking], source: str) -> list[Ranking]:
    if not found:
        raise GPTError(f"{source} has no complete ranking")
    return found


def from_json(line: str, number: int, path: Path) -> Ranking:
    """The line of that number of a file. Raises GPTError, or another error for one that is no JSON."""
    values = json.loads(line.removeprefix("\ufeff"))
    if isinstance(values, Mapping) and "order" in values:
        return from_line(line)
    return preference(values, f"line {number} of {path.name}", path.stem)


def columns_of(row: object, where: str) -> Mapping:
    """The row. Raises GPTError for one without `chosen` and `rejected`."""
    if isinstance(row, GPTError):
        raise row
    if not isinstance(row, Mapping) or "chosen" not in row or "rejected" not in row:
        has = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise GPTError(f"{where} has no chosen and rejected; it has {has:.120}: columns are renamed to these")
    return row


def preference(row: object, where: str, by: str) -> Ranking:
    """A row of `chosen` and `rejected`. Raises GPTError."""
    row = columns_of(row, where)
    if formats.has(row, "tools"):
        raise GPTError(f"{where} has tools, which are not read in preferences: leave that column out")
    prompt = formats.turns_in(row["prompt"], where) if formats.has(row, "prompt") else None
    better, worse = (formats.turns_in(row[name], where) for name in ("chosen", "rejected"))
    if prompt is None:
        turns = transcript(better), transcript(worse)
        better, worse = turns if all(turns) else (better, worse)
    if not isinstance(better, str) and not isinstance(worse, str):
        both = [formats.messages_of_turns(each, where) for each in (better, worse)]
        if prompt is None or isinstance(prompt, str):
            shared = list(takewhile(lambda two: two[0] == two[1], zip(*both, strict=False)))
            count = min(len(shared), *(len(each) - 1 for each in both))
            prompt, both = both[0][:count] or prompt, [each[count:] for each in both]
            if count and any(len(each) > 1 for each in both):
                raise GPTError(f"{where}: chosen and rejected differ in more than their last answer")
        better, worse = both
    text, messages = question(prompt, row, where)
    texts = [answer(each, name, where) for each, name in ((better, "chosen"), (worse, "rejected"))]
    completions = tuple({"model": "", "text": each, "seed": 0} for each in texts)
    return Ranking(text, completions, ((0,), (1,)), (0, 1), by, messages=messages)


def transcript(text: Any) -> list[dict]:
    """The turns of a text of `Human:` and `Assistant:`; none of anything else."""
    begin, *parts = SPEAKER.split(text) if isinstance(text, str) else [""]
    if begin.strip():
        return []
    return [{"from": who.lower(), "value": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)]


def question(prompt: Any, row: Mapping, where: str) -> tuple[str, tuple[dict, ...]]:
    """The prompt as text, and its messages if it is more than one turn of the user."""
    if prompt is None:
        raise GPTError(f"{where} has no prompt")
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    own = {"system": formats.text(row["system"], where)} if formats.has(row, "system") else {}
    asked = turns_of(turns, own, where)
    last = {"role": "user", "content": asked} if isinstance(asked, str) else asked[-1]
    if last["role"] not in ("user", "tool"):
        raise GPTError(f"{where} has a prompt that ends with a turn of the {last['role']}: the user's is answered")
    if last["role"] == "user" and not last["content"].strip():
        raise GPTError(f"{where} has no prompt")
    if isinstance(asked, str) and not own:
        return asked, ()
    turns = [last] if isinstance(asked, str) else asked
    system = [{"role": "system", "content": own["system"]}] if own else []
    return spelled([*system, *turns]).strip(), (*system, *turns)


def answer(value: Any, name: str, where: str) -> str:
    """A completion: a text, or one message."""
    if isinstance(value, str):
        return value
    turns: Sequence[Mapping] = formats.messages_of_turns(value, where) if formats.has({name: value}, name) else []
    if len(turns) != 1:
        raise GPTError(f"{where}: {name} is a text or one message after the prompt, and not {len(turns)} messages")
    if turns[0]["role"] != "assistant" or turns[0].get("tool_calls"):
        does = "calls tools" if turns[0].get("tool_calls") else f"ends with a turn of the {turns[0]['role']}"
        raise GPTError(f"{where}: {name} {does}: what is ranked is a text of the assistant")
    if reasoning := next((key for key in formats.REASONING if turns[0].get(key)), None):
        raise GPTError(
            f"{where}: {name} has {reasoning} beside its content: put it into the content, marked as the model marks it"
        )
    return turns[0]["content"]
