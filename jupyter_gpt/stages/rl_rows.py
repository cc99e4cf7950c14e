"""Prompts of reinforcement learning as rows: texts or messages, with columns for reward functions; and votes for KTO.

{"prompt": "Why?", "answer": "42"}                                a prompt with a column
{"question": "6 * 7?", "answer": "… #### 42"}                     as GSM8K has them
{"prompt": [{"role": "user", "content": …}, …], "system": …}      turns, and a system prompt
{"prompt": …, "completion": …, "label": true}                     a vote, TRL's unpaired preference
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from jupyter_gpt.data import conversation_formats as formats
from jupyter_gpt.data import files, hub, sources
from jupyter_gpt.data.render import Question
from jupyter_gpt.errors import GPTError, nearest

LABELS = {"true": True, "1": True, "false": False, "0": False}  # as a table spells them
SUPPORTED = "prompts are rows of .jsonl, .json, .csv, .tsv or .parquet"


@dataclass
class Rows:
    """texts: the prompts, in order.  By prompt, columns: what its row holds beside it; chats: its messages, of a prompt
    of several turns.  votes: rows of `prompt`, `completion` and `label`.
    """

    texts: list[str] = field(default_factory=list)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    chats: dict[str, list[dict]] = field(default_factory=dict)
    votes: list[dict[str, Any]] = field(default_factory=list)


def rows_of(prompts: Any, variables: Mapping, most: int | None = None, voted: bool = False) -> Rows:
    """The prompts of a cell's body, a list or a table; with `voted` rows with a label are votes.

    Of a dataset of the hub the first `most` rows are read, and a prompt that comes again is left out. Raises GPTError
    for rows without a prompt, and for one prompt with two contents.
    """
    found, source = Rows(), source_of(prompts)
    seen: dict[str, Any] = {}  # the system prompt of each
    for where, row in read(prompts, source, variables, most):
        if isinstance(row, GPTError):
            raise row
        own: dict[str, Any] = {} if isinstance(row, str) else dict(cast(Mapping, row))
        asked = (
            row
            if isinstance(row, str)
            else own.pop("prompt")
            if formats.has(own, "prompt")
            else own.pop("question", None)
        )
        asked = asked if isinstance(row, str) else formats.turns_in(asked, where)
        if not isinstance(asked, str):
            asked = turns_of(asked, own, where) if isinstance(asked, Sequence) or hasattr(asked, "tolist") else None
        if asked is None and "chosen" in own:
            raise GPTError(f"{where} has chosen and no prompt: `%%rank NAME --rankings FILE` imports such rows for dpo")
        if asked is None:
            raise GPTError(f"{where} has no text named prompt or question: {row!s:.60}")
        text = spelled(asked).strip()
        if not text:
            continue
        system = own["system"] if formats.has(own, "system") else None
        if text in seen and seen[text] != system and (voted or not source.startswith("hf:")):
            raise GPTError(f"the prompt {text[:40]!r} stands in two rows whose system prompts differ")
        if voted and "label" in own:
            found.votes.append({"prompt": text, "completion": completion_of(own, where), "label": label_of(own, where)})
            own = {key: own[key] for key in ("system",) if key in own}
        if source.startswith("hf:") and not voted and text in seen:
            continue
        seen.setdefault(text, system)
        if own and found.columns.setdefault(text, own) != own:
            raise GPTError(f"the prompt {text[:40]!r} stands in two rows whose other columns differ")
        if not isinstance(asked, str):
            found.chats[text] = asked
        found.texts.append(text)
    try:
        json.dumps(found.columns)
    except TypeError as error:
        message = "the columns of the prompts go into the recipe, so they are texts, numbers or lists"
        raise GPTError(f"{message}: {error}") from None
    return found


def source_of(prompts: Any) -> str:
    """The source of rows that a body names: `$variable`, `hf:…` or a file; "" where it is the prompts themselves."""
    lines = prompts.splitlines() if isinstance(prompts, str) else [] if prompts is None else list(prompts)
    if len(lines) != 1 or not isinstance(lines[0], str) or len(lines[0].split()) != 1:
        return ""
    name = lines[0].strip()
    known = hub.SOURCE.fullmatch(name) or name.lower().endswith(files.ROW_SUFFIXES)
    return name if known or (name.startswith("$") and name[1:].isidentifier()) else ""


def read(prompts: Any, source: str, variables: Mapping, most: int | None) -> Iterator[files.Row]:
    """The rows, each with its place."""
    if source.startswith("hf:"):
        return islice(hub.rows(source), most)
    if source.startswith("$"):
        if source[1:] not in variables:
            raise GPTError(f"there is no variable {source[1:]} with prompts{nearest(source[1:], variables)}")
        prompts = sources.rows_of(variables[source[1:]], source, "a list of texts or rows")
    elif source:
        paths = sources.paths(source, files.ROW_SUFFIXES, SUPPORTED)
        return (row for path in paths for row in files.rows(path))
    listed: Iterable = prompts.splitlines() if isinstance(prompts, str) else prompts or ()
    return ((f"row {number} of the prompts", row) for number, row in enumerate(listed))


def turns_of(prompt: Any, own: dict, where: str) -> str | list[dict]:
    """The turns of a prompt; the text alone where there is one. A system prompt among them goes to the columns."""
    turns = formats.messages_of_turns(prompt, where)
    if system := [turn["content"] for turn in turns if turn["role"] == "system"]:
        if formats.has(own, "system"):
            raise GPTError(f"{where} has two system prompts, a turn and a column: leave one out")
        own["system"] = "\n\n".join(system)
    turns = [turn for turn in turns if turn["role"] != "system"]
    if not turns:
        raise GPTError(f"{where} has no turn to answer: a prompt ends with a turn of the user")
    return turns[0]["content"] if len(turns) == 1 and turns[0]["role"] == "user" else turns


def spelled(asked: str | Sequence[Mapping]) -> str:
    """A prompt as one text: its turns as a cell spells them."""
    return asked if isinstance(asked, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in asked)


def completion_of(row: Mapping, where: str) -> str:
    """The completion of a vote, a text or one message."""
    completion = formats.turns_in(row.get("completion"), where)
    if isinstance(completion, str):
        return completion
    turns = formats.messages_of_turns(completion, where) if completion is not None else []
    if len(turns) != 1:
        raise GPTError(f"{where} has a label and no completion, which is a text or one message")
    return turns[0]["content"]


def label_of(row: Mapping, where: str) -> bool:
    """Whether a vote calls its completion good."""
    found = LABELS.get(str(row["label"]).strip().removesuffix(".0").lower())
    if found is None:
        raise GPTError(f"{where}: label is true or false, not {row['label']!r:.40}")
    return found


def votes_of_rankings(rankings: Iterable) -> list[dict[str, Any]]:
    """The votes that rankings stand for: their best completions are good, their worst bad; the others say nothing."""
    return [
        {
            "prompt": ranking.prompt,
            "completion": ranking.completions[place]["text"],
            "label": group is ranking.order[0],
            "finished": ranking.finished[place],
            "sampled": ranking.sampled[place],
            "messages": ranking.messages,
        }
        for ranking in rankings
        if ranking.pairs
        for group in (ranking.order[0], ranking.order[-1])
        for place in group
    ]


def question_of(recipe: Any, text: str, messages: Sequence[dict] = ()) -> Question:
    """What a model is asked by a prompt, of the recipe or with `messages` of its own: its turns, after its own system
    prompt or that of all."""
    asked = list(messages) or recipe.chats.get(text, text)
    if not isinstance(asked, str) and asked[0]["role"] == "system":  # of a ranking
        return Question(asked)
    own = recipe.columns.get(text, {})
    system = own["system"] if formats.has(own, "system") else recipe.system
    return Question(asked, system=system)
