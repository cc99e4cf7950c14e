"""The formats in which conversations are written, and a row of each as messages.

    messages           {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}, …]}
    prompt-completion  {"prompt": …, "completion": …}; also `response`, or `question` and `answer`
    alpaca             {"instruction": …, "input": …, "output": …}; also `response` (Taori et al. 2023)
    sharegpt           {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}, …]}
    pairs              (question, answer), in a list of the notebook
    turns              text: `user:` and `assistant:`, conversations separated by a line of `---`; also as transcripts
                       have them, `User:`, `**Human:**`, `## Assistant`

`system` in a row is the system prompt; `developer` is another name of that role. As in OpenAI's format, a turn of the
assistant with `"weight": 0` is read and not trained on, `tool_calls` of the assistant are answered by turns of the role
`tool`, and `tools` beside the messages are the functions that may be called. `reasoning_content`, or `thinking`, is
what it thought before its answer; the chat template spells it, if it can. Images, videos and sounds are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from numbers import Number

from jupyter_gpt.data.files import Row, utf8
from jupyter_gpt.data.render import TURN
from jupyter_gpt.errors import GPTError

ROLES = ("system", "user", "assistant", "tool")
ALIASES = {
    "developer": "system",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
REASONING = ("reasoning_content", "thinking", "reasoning")  # as chat templates and servers call it
PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"))
SUPPORTED_ROWS = "messages, prompt and completion, instruction and output, or conversations"
MEDIA = {"image": "an image", "video": "a video", "audio": "a sound", "input_audio": "a sound"}
MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
WHO = "|".join((*ROLES, *ALIASES))
TURNS = re.compile(rf"""\s*\[\s*\{{.*?['"](?:role|from)['"]\s*:\s*['"](?:{WHO})['"]""", re.DOTALL)  # in a text
SEPARATOR = re.compile(r"-{3,}[ \t]*")
SPEAKERS = (
    {"ai": "assistant", "chatbot": "assistant", "chatgpt": "assistant"} | ALIASES | {role: role for role in ROLES}
)
SPEAKER = f"({'|'.join(name for name, role in SPEAKERS.items() if role != 'tool')})"
MARKS = [TURN] + [
    re.compile(pattern, re.MULTILINE | re.IGNORECASE)
    for pattern in (
        rf"^(?=(?-i:[A-Z])){SPEAKER}:[ \t]*",
        rf"^\*\*{SPEAKER}(?::\*\*|\*\*:)[ \t]*",
        rf"^\#{{1,6}}[ \t]+{SPEAKER}:?[ \t]*$",
    )
]


def format_of(row: object) -> str | None:
    """The format a row is written in; None when it is none of those above."""
    if isinstance(row, Mapping):
        if has(row, "messages"):
            return "messages"
        if has(row, "conversations"):
            return "sharegpt"
        if "instruction" in row and ("output" in row or "response" in row):
            return "alpaca"
        return "prompt-completion" if any(a in row and b in row for a, b in PAIRS) else None
    if isinstance(row, Sequence) and not isinstance(row, str) and len(row):
        if all(isinstance(part, Mapping) for part in row):
            return "sharegpt" if "from" in row[0] else "messages"
        if len(row) == 2 and all(isinstance(part, str) for part in row):
            return "pairs"
    return None


def has(row: Mapping, key: str) -> bool:
    """Whether a row has a value under this key that is not empty."""
    value = row.get(key)
    if hasattr(value, "__len__"):
        return len(value) > 0
    return value is not None and value == value  # NaN, an empty cell of a table, is not equal to itself


def messages_of(row: object, format: str, where: str) -> list[dict]:
    """The messages of a row of this format, in its order. GPTError, naming `where`, for what is not text."""
    if isinstance(row, Mapping) and (column := next((each for each in MEDIA_COLUMNS if has(row, each)), None)):
        raise GPTError(f"{where} has {column} beside its text: models are trained on text alone here")
    if format == "pairs":
        messages = exchange(row[0], row[1], where)
    elif format == "alpaca":
        task, context = (text(row[key], where) if has(row, key) else "" for key in ("instruction", "input"))
        answer = row["output"] if "output" in row else row["response"]
        messages = exchange("\n\n".join(part for part in (task, context) if part.strip()), answer, where)
    elif format == "prompt-completion":
        prompt, completion = next((a, b) for a, b in PAIRS if a in row and b in row)
        messages = exchange(row[prompt], row[completion], where)
    else:
        turns = row if not isinstance(row, Mapping) else row["messages" if format == "messages" else "conversations"]
        messages = messages_of_turns(turns, where)
    if isinstance(row, Mapping) and has(row, "system"):
        return [{"role": "system", "content": text(row["system"], where)}, *messages]
    return messages


def exchange(prompt: object, completion: object, where: str) -> list[dict]:
    """A prompt and its completion: texts, or messages on either side."""
    messages = []
    for role, given in (("user", prompt), ("assistant", completion)):
        part = turns_in(given, where)
        if isinstance(part, str) or not hasattr(part, "__len__"):
            empty = part is None or part != part
            number = isinstance(part, Number) and not isinstance(part, bool)
            messages.append({"role": role, "content": "" if empty else str(part) if number else text(part, where)})
        else:
            messages += messages_of_turns(part, where)
    return messages


def messages_of_turns(turns: object, where: str) -> list[dict]:
    """A list of turns, also as JSON text: role and content, or from and value."""
    messages, calls = [], []
    for turn in list_of(turns, f"{where}: its turns"):
        message = message_of(turn, where)
        if message["role"] == "assistant":
            calls = list(message.get("tool_calls", ()))
        elif message["role"] == "tool" and calls:  # templates need the call that it answers, and the function's name
            call = next((call for call in calls if call["id"] == message.get("tool_call_id")), calls[0])
            calls.remove(call)
            message = {"tool_call_id": call["id"], "name": call["function"]["name"]} | message
        messages.append(message)
    return messages


def turns_in(value: object, where: str) -> object:
    """The turns that a text spells as JSON, as a cell of a table does; any other value as it is."""
    return list_of(value, f"{where}: its turns") if isinstance(value, str) and TURNS.match(value) else value


def list_of(value: object, what: str) -> Sequence:
    """A list, also one written as JSON in a cell of a table."""
    value = from_json(value, what)
    if hasattr(value, "tolist"):
        value = value.tolist()  # an array, as a DataFrame from parquet holds it
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise GPTError(f"{what} are a list, not {type(value).__name__}")
    return value


def from_json(value: object, what: str) -> object:
    """The value of a JSON text; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise GPTError(f"{what} are not JSON: {error.msg} at character {error.pos}") from None


def message_of(turn: object, where: str) -> dict:
    """A turn as a message. GPTError, naming `where`, for one without a known role or a text."""
    role = content = None
    if isinstance(turn, Mapping):
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
    role = ALIASES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        problem = f"a turn with the role {role!r}" if role is not None else f"a turn without a role: {turn!r:.60}"
        raise GPTError(f"{where} has {problem}; roles are {', '.join(ROLES[:-1])} and {ROLES[-1]}")
    message = {"role": role}
    if role == "tool":
        message |= {key: text(turn[key], where) for key in ("tool_call_id", "name") if has(turn, key)}
    elif role == "assistant":
        message |= {key: text(turn[key], where) for key in REASONING if has(turn, key)}
        if has(turn, "tool_calls"):
            message["tool_calls"] = [tool_call(call, number, where) for number, call in enumerate(turn["tool_calls"])]
            content = "" if content is None else content
        if has(turn, "weight"):
            if turn["weight"] not in (0, 1):
                raise GPTError(f"{where} has a turn of weight {turn['weight']!r:.20}: 0 is not trained on, 1 is")
            message |= {"weight": 0} if turn["weight"] == 0 else {}
    return message | {"content": text(content, where)}


def tool_call(call: object, number: int, where: str) -> dict:
    """A tool call as chat templates take it, its arguments as a mapping."""
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise GPTError(f'{where} has a tool call that is not {{"function": {{"name": …, "arguments": …}}}}')
    arguments = from_json(function.get("arguments") or {}, f"{where}: the arguments of the call of {name}")
    if not isinstance(arguments, Mapping):
        raise GPTError(f"{where}: the arguments of the call of {name} are a {type(arguments).__name__}, not an object")
    id_ = call["id"] if isinstance(call.get("id"), str) else f"call{number:05}"
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": dict(arguments)}}


def tools_of(row: object, where: str) -> list[dict] | None:
    """The functions that may be called in a row's conversation, as JSON schemas; None for none."""
    if not isinstance(row, Mapping) or not has(row, "tools"):
        return None
    tools = list_of(row["tools"], f"{where}: its tools")
    functions = [tool.get("function") if isinstance(tool, Mapping) else None for tool in tools]
    if not all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in functions):
        raise GPTError(f'{where}: its tools are a list of {{"type": "function", "function": {{"name": …, …}}}}')
    return [dict(tool) for tool in tools]


def text(content: object, where: str) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, str):
        utf8(content, where)
        return content
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content):
        other = next((part for part in content if not isinstance(part.get("text"), str)), None)
        if other is None:
            return "".join(part["text"] for part in content)
        if kind := next((kind for kind in MEDIA if has(other, kind) or str(other.get("type")).startswith(kind)), None):
            raise GPTError(f"{where} has a turn with {MEDIA[kind]}: models are trained on text alone here")
    kind = "None" if content is None else f"a {type(content).__name__}"
    raise GPTError(f"{where}: the content of a turn is a text, not {kind}")


def mark_of(text: str) -> re.Pattern | None:
    """How turns begin in a text, by its first line: `user:`, or `User:`, `**User:**` or `## User` of a transcript; None
    where that begins no turn."""
    return next((mark for mark in MARKS if mark.match(text.lstrip())), None)


def turns_of_text(text: str) -> list[dict] | None:
    """The messages of a text whose first line begins a turn; None for any other. Every line that begins as that one
    does starts a message, which ends at the next."""
    mark = mark_of(text)
    if mark is None:
        return None
    parts = mark.split(text.lstrip())[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": SPEAKERS[name.lower()], "content": content.strip()} for name, content in pairs]


def read_turns(text: Iterable[str], name: str) -> Iterator[Row]:
    """The conversations of a text in the format `turns`, given in lines, as messages; a GPTError for one without a role
    at its start.

    A turn ends at the line that begins the next, a conversation at a line of `---`.
    """
    begins, lines = 1, []
    for number, line in enumerate(chain((line.removesuffix("\n") for line in text), ["---"]), 1):
        if not SEPARATOR.fullmatch(line.rstrip("\r")):
            lines.append(line)
            continue
        block, first = "\n".join(lines), begins
        lines, begins = [], number + 1
        if not block.strip():
            continue
        where = f"{name}, line {first + block[: len(block) - len(block.lstrip())].count(chr(10))}"
        yield (
            where,
            turns_of_text(block)
            or GPTError(
                f"{where}: a conversation begins with `user:` or `system:`, not with "
                f"{block.strip().splitlines()[0][:40]!r} (a line of --- separates conversations)"
            ),
        )


NEXT_ROLES = {"user": ("assistant",), "assistant": ("user",), "calls": ("tool",), "tool": ("tool", "assistant")}


def trainable(messages: list[dict], where: str) -> tuple[list[dict], bool]:
    """The messages up to the last answer, and whether turns without an answer were left out after it.

    A system prompt may come first; then user and assistant take turns, and tools answer the assistant's calls. Raises
    GPTError, naming `where`, for any other order, for no answer to train on, and for an empty turn.
    """
    turns = [m for i, m in enumerate(messages) if i or m["role"] != "system"]
    if not any(m["role"] == "assistant" for m in turns):
        raise GPTError(f"{where} has no turn of the assistant, so nothing to train on")
    if not any(m["role"] == "assistant" and m.get("weight", 1) for m in turns):
        raise GPTError(f"{where} has weight 0 in all turns of the assistant, so nothing to train on")
    expected = ("user",)
    for number, turn in enumerate(turns):
        role = turn["role"]
        if role not in expected:
            place = number + 1 + len(messages) - len(turns)
            raise GPTError(
                f"{where} has its roles out of order: turn {place} is the {role}'s, expected the "
                + " or the ".join(f"{each}'s" for each in expected)
            )
        expected = NEXT_ROLES["calls" if turn.get("tool_calls") else role]
        empty = not (turn["content"].strip() or turn.get("tool_calls") or role == "tool")
        if empty and (role == "assistant" or number + 1 < len(turns)):
            raise GPTError(f"{where} has an empty {'answer' if role == 'assistant' else 'question'}")
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    return messages[: last + 1], last + 1 < len(messages)
