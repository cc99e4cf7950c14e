"""A prompt as it is written in a cell: `{variable}` holes, and the turns of a chat.

A hole is a plain name of a variable, with attributes and indices (`{paper.title}`, `{rows[0]["name"]}`):
looked up, never evaluated. Any other brace is just a brace, so JSON and code survive. `{{name}}` is a
`{name}` that stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType

from jupyter_gpt.errors import GPTError

ROLES = ("system", "user", "assistant")
OF_TOOLS = ("tool_calls", "tool_call_id", "name")  # what a message has besides, when tools are called
TURN = re.compile(rf"^({'|'.join(ROLES)}):[ \t]*", re.MULTILINE)
STEP = r"""\.[A-Za-z]\w*|\[-?\d+\]|\['[^'\]]*'\]|\["[^"\]]*"\]"""
HOLE = re.compile(rf"\{{(?P<twice>\{{)?(?P<name>[A-Za-z]\w*)(?P<path>(?:{STEP})*)\}}(?(twice)\}})")
IPYTHON = frozenset({"In", "Out", "exit", "quit", "open", "get_ipython"})


def fill(text: str, variables: Mapping[str, object]) -> tuple[str, list[str]]:
    """`text` with its holes filled, and the names in braces that are no variable and so stayed as written.

    A variable is data: no function, no module, nothing of IPython's. Raises GPTError when a known variable
    has not the attribute or index that is asked of it.
    """
    unknown: list[str] = []

    def value(hole: re.Match) -> str:
        name = hole["name"]
        if not is_data(name, variables):
            unknown.append(hole[0])
            return hole[0]
        return hole[0][1:-1] if hole["twice"] else str(follow(variables[name], hole["path"], hole[0]))

    return HOLE.sub(value, text), unknown


def is_data(name: str, variables: Mapping[str, object]) -> bool:
    """Whether a hole may be filled with this variable."""
    if name not in variables or name in IPYTHON:
        return False
    value = variables[name]
    return not (callable(value) or isinstance(value, ModuleType))


def follow(value: object, path: str, hole: str) -> object:
    """What attributes and indices lead to. Raises GPTError naming the step that leads nowhere."""
    for step in re.findall(STEP, path):
        try:
            if step[0] == ".":
                value = getattr(value, step[1:])
            else:
                key = step[1:-1]
                value = value[key[1:-1] if key[0] in "'\"" else int(key)]
        except (AttributeError, LookupError, TypeError) as error:
            kind = type(value).__name__
            raise GPTError(f"{hole} cannot be filled: {step} is not to be had of the {kind} before it") from error
    return value


def turns(text: str) -> list[dict] | None:
    """The messages of a text whose first line begins with `system:`, `user:` or `assistant:`; None for any
    other.

    Every line that begins so opens a turn, which goes on to the next.
    """
    if not TURN.match(text.lstrip()):
        return None
    parts = TURN.split(text.lstrip())[1:]
    return [{"role": role, "content": content.strip()} for role, content in zip(parts[::2], parts[1::2], strict=True)]


def check_messages(messages: object) -> list[dict]:
    """The messages, each with a known role and a text. Raises GPTError for anything else."""
    if not isinstance(messages, list | tuple) or not messages:
        raise GPTError('a chat is a list of {"role": …, "content": …}, with one of them at least')
    for message in messages:
        good = isinstance(message, Mapping) and isinstance(message.get("content"), str)
        if not good or message.get("role") not in (*ROLES, "tool"):
            raise GPTError(
                f"a turn of a chat has a role ({', '.join(ROLES)}) and a text as content, not {message!r:.60}"
            )
    return [
        {"role": m["role"], "content": m["content"]} | {name: m[name] for name in OF_TOOLS if m.get(name)}
        for m in messages
    ]
