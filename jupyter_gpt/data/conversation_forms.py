"""The forms in which people write conversations down, and a row of each as messages.

    messages           {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}, …]}
    prompt-completion  {"prompt": …, "completion": …}; also `response`, or `question` and `answer`
    alpaca             {"instruction": …, "input": …, "output": …}; also `response` (Taori et al. 2023)
    sharegpt           {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}, …]}
    pairs              (question, answer), in a list of the notebook

`system`, where a row of these has it, is the system prompt; `developer` is another name of that role. A turn of the
assistant with `"weight": 0` is read and not learned, as in OpenAI's format. Of the same are `tool_calls` of the
assistant, turns of the role `tool` that answer them, and `tools`, the functions that may be called, beside the
messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from numbers import Number

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
PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"))
WANTED = "messages, prompt and completion, instruction and output, or conversations"


def form_of(row: object) -> str | None:
    """The form a row is written in; None when it is none of those above."""
    if isinstance(row, Mapping):
        if filled(row, "messages"):
            return "messages"
        if filled(row, "conversations"):
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


def filled(row: Mapping, key: str) -> bool:
    """Whether a row says something under this key: a table has empty cells."""
    value = row.get(key)
    if hasattr(value, "__len__"):
        return len(value) > 0
    return value is not None and value == value  # an empty cell of a table is not equal to itself


def messages_of(row: object, form: str, where: str) -> list[dict]:
    """The messages of a row of this form, as they stand there. GPTError, naming `where`, for what is not text."""
    system = row["system"] if isinstance(row, Mapping) and filled(row, "system") else None
    if form == "pairs":
        found = two(row[0], row[1], where)
    elif form == "alpaca":
        task, given = (text(row[key], where) if filled(row, key) else "" for key in ("instruction", "input"))
        answer = row["output"] if "output" in row else row["response"]
        found = two("\n\n".join(part for part in (task, given) if part.strip()), answer, where)
    elif form == "prompt-completion":
        asked, answered = next((a, b) for a, b in PAIRS if a in row and b in row)
        found = two(row[asked], row[answered], where)
    else:
        turns = row if not isinstance(row, Mapping) else row["messages" if form == "messages" else "conversations"]
        found = listed(turns, where)
    return [{"role": "system", "content": text(system, where)}, *found] if system is not None else found


def two(asked: object, answered: object, where: str) -> list[dict]:
    """A prompt and its completion: texts, or messages on either side."""
    halves = []
    for role, half in (("user", asked), ("assistant", answered)):
        if isinstance(half, str) or not hasattr(half, "__len__"):
            empty = half is None or half != half
            number = isinstance(half, Number) and not isinstance(half, bool)
            said = "" if empty else str(half) if number else text(half, where)
            halves.append({"role": role, "content": said})
        else:
            halves += listed(half, where)
    return halves


def listed(turns: object, where: str) -> list[dict]:
    """A list of turns: role and content, or from and value; a text of JSON, as a table holds it, is read."""
    found, calls = [], []
    for turn in listed_values(turns, f"{where}: its turns"):
        turn = turn_of(turn, where)
        if turn["role"] == "assistant":
            calls = list(turn.get("tool_calls", ()))
        elif turn["role"] == "tool" and calls:  # templates want to know which call it answers, and of what
            call = next((call for call in calls if call["id"] == turn.get("tool_call_id")), calls[0])
            calls.remove(call)
            turn = {"tool_call_id": call["id"], "name": call["function"]["name"]} | turn
        found.append(turn)
    return found


def listed_values(value: object, what: str) -> Sequence:
    """A list, also one written as JSON in a cell of a table."""
    value = parsed(value, what)
    if hasattr(value, "tolist"):
        value = value.tolist()  # an array, as a DataFrame from parquet holds it
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise GPTError(f"{what} are a list, not {type(value).__name__}")
    return value


def parsed(value: object, what: str) -> object:
    """The value of a text of JSON; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise GPTError(f"{what} are not JSON: {error.msg} at character {error.pos}") from None


def turn_of(turn: object, where: str) -> dict:
    role = content = None
    if isinstance(turn, Mapping):
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
    role = ALIASES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        said = f"a turn with the role {role!r}" if role is not None else f"a turn without a role: {turn!r:.60}"
        raise GPTError(f"{where} has {said}; a turn is of {', '.join(ROLES[:-1])} or {ROLES[-1]}")
    found = {"role": role, "content": content}
    if role == "tool":
        found |= {key: text(turn[key], where) for key in ("tool_call_id", "name") if filled(turn, key)}
    elif role == "assistant":
        if filled(turn, "tool_calls"):
            found["tool_calls"] = [call_of(call, number, where) for number, call in enumerate(turn["tool_calls"])]
            found["content"] = "" if content is None else content
        if filled(turn, "weight"):
            if turn["weight"] not in (0, 1):
                raise GPTError(
                    f"{where} has a turn of weight {turn['weight']!r:.20}: 0 is read and not learned, 1 is learned"
                )
            found |= {"weight": 0} if turn["weight"] == 0 else {}
    return found | {"content": text(found["content"], where)}


def call_of(call: object, number: int, where: str) -> dict:
    """A tool call as chat templates take it, its arguments as a mapping."""
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise GPTError(f'{where} has a tool call that is not {{"function": {{"name": …, "arguments": …}}}}')
    arguments = parsed(function.get("arguments") or {}, f"{where}: the arguments of the call of {name}")
    if not isinstance(arguments, Mapping):
        raise GPTError(f"{where}: the arguments of the call of {name} are a {type(arguments).__name__}, not an object")
    mark = call["id"] if isinstance(call.get("id"), str) else f"call{number:05}"
    return {"id": mark, "type": "function", "function": {"name": name, "arguments": dict(arguments)}}


def tools_of(row: object, where: str) -> list[dict] | None:
    """The functions that a row says may be called, as JSON schemas; None for none."""
    if not isinstance(row, Mapping) or not filled(row, "tools"):
        return None
    tools = listed_values(row["tools"], f"{where}: its tools")
    functions = [tool.get("function") if isinstance(tool, Mapping) else None for tool in tools]
    if not all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in functions):
        raise GPTError(f'{where}: its tools are a list of {{"type": "function", "function": {{"name": …, …}}}}')
    return [dict(tool) for tool in tools]


def text(content: object, where: str) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, str):
        whole(content, where)
        return content
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) and "text" in part for part in content):
        return "".join(str(part["text"]) for part in content)
    kind = "nothing" if content is None else f"a {type(content).__name__}"
    raise GPTError(f"{where}: what is said in a turn is a text, not {kind}")


def whole(content: str, where: str) -> None:
    """Raises GPTError for half a character, as JSON may spell it and no tokenizer takes it."""
    try:
        content.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(content[error.start]):04X}"
        raise GPTError(
            f"{where} has half a character: {code}, a lone surrogate, at character {error.start} of a text"
        ) from None


NEXT = {"user": ("assistant",), "assistant": ("user",), "calls": ("tool",), "tool": ("tool", "assistant")}


def checked(messages: list[dict], where: str) -> tuple[list[dict], bool]:
    """The messages in an order that can be learned from, and whether last turns without an answer were left out.

    A system prompt may come first; then user and assistant take turns, tools answer when the assistant calls them, and
    the assistant has the last word. Raises GPTError, naming `where`, for any other order, without an answer to learn,
    and for a turn that says nothing.
    """
    turns = [m for i, m in enumerate(messages) if i or m["role"] != "system"]
    if not any(m["role"] == "assistant" for m in turns):
        raise GPTError(f"{where} has no turn of the assistant, so nothing to learn from")
    if not any(m["role"] == "assistant" and m.get("weight", 1) for m in turns):
        raise GPTError(f"{where} has weight 0 in all turns of the assistant, so nothing to learn from")
    expected = ("user",)
    for number, turn in enumerate(turns):
        role = turn["role"]
        if role not in expected:
            place = number + 1 + len(messages) - len(turns)
            wanted = " or the ".join(f"{each}'s" for each in expected)
            raise GPTError(
                f"{where} has its roles out of order: turn {place} is the {role}'s where the {wanted} belongs"
            )
        expected = NEXT["calls" if turn.get("tool_calls") else role]
        said = turn["content"].strip() or turn.get("tool_calls") or role == "tool"
        if not said and (role == "assistant" or number + 1 < len(turns)):
            raise GPTError(f"{where} has an empty {'answer' if role == 'assistant' else 'question'}")
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    return messages[: last + 1], last + 1 < len(messages)
