"""One turn of a model that thinks and acts, read: a thought, and a call or an answer.

The lines `Action Input` and `Final Answer` are as LangChain has them; the paper's own `Action: search[…]` is read too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ANSWERED = re.compile(r"^[ \t*]*Final Answer[*]*[ \t]*:[*]*[ \t]*(?P<answer>.*)", re.MULTILINE | re.DOTALL)
ACTION = re.compile(r"^[ \t*]*Action[*]*[ \t]*:[*]*[ \t]*(?P<action>[^\n]*)", re.MULTILINE)
INPUT = re.compile(r"\A\s*[*]*Action Input[*]*[ \t]*:[*]*[ \t]*(?P<input>.*)", re.DOTALL)
INLINE = re.compile(r"`?(?P<name>[\w-]+)`?\s*[\[(](?P<input>.*)[\])]\s*", re.DOTALL)  # search[the Nile], say(3)
RESULT = "\nObservation:"


class Unreadable(Exception):
    """What the model wrote is neither a call nor an answer; the message says why."""


@dataclass(frozen=True)
class Call:
    """A call as the model wrote it: `arguments` a text or a mapping, not checked yet."""

    name: str
    arguments: object
    id: str = ""


@dataclass(frozen=True)
class Said:
    """What the model said in one turn: its thought, and calls or else an answer."""

    thought: str
    calls: tuple[Call, ...] = ()
    answer: str | None = None


def read_turn(text: str, cut_off: bool = False) -> Said:
    """The thought, and the action or the final answer, whichever comes first."""
    text = text.partition(RESULT)[0]
    answer, action = ANSWERED.search(text), ACTION.search(text)
    if answer and (action is None or answer.start() < action.start()):
        if not answer["answer"].strip():
            raise Unreadable("the Final Answer is empty")
        return Said(thought(text[: answer.start()]), answer=answer["answer"].strip())
    if action is None:
        raise Unreadable("it has neither an Action nor a Final Answer" + (", it was cut off" if cut_off else ""))
    before, name = thought(text[: action.start()]), action["action"].strip(" \t`*")
    given = INPUT.match(text[action.end() :])
    if given:
        return Said(before, (Call(name, given["input"].strip()),))
    inline = INLINE.fullmatch(text[action.start("action") :].strip())
    if inline:
        return Said(before, (Call(inline["name"], inline["input"].strip()),))
    raise Unreadable("the Action has no Action Input")


def thought(text: str) -> str:
    return re.sub(r"\A\s*\**Thought\**\s*:\s*", "", text).strip()
