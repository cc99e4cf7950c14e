"""Tool calls written in the text, as ReAct has them: Thought / Action / Action Input / Observation.

For any model, trained to call tools or not (Yao et al. 2022, "ReAct: Synergizing Reasoning and Acting in
Language Models"; the lines `Action Input` and `Final Answer` are as LangChain has them since, and the paper's
own `Action: search[…]` is read too). A model of the kernel is held to the form by a grammar, so that its
calls always parse; with any other what it wrote is read as far as it can be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.prompting.ask import Ask, Asked, filled, go_on, reworded, text_of
from jupyter_gpt.prompting.tools.act import Acting, listed
from jupyter_gpt.prompting.tools.tool import Tool

ANSWERED = re.compile(r"^[ \t*]*Final Answer[*]*[ \t]*:[*]*[ \t]*(?P<answer>.*)", re.MULTILINE | re.DOTALL)
ACTION = re.compile(r"^[ \t*]*Action[*]*[ \t]*:[*]*[ \t]*(?P<action>[^\n]*)", re.MULTILINE)
INPUT = re.compile(r"\A\s*[*]*Action Input[*]*[ \t]*:[*]*[ \t]*(?P<input>.*)", re.DOTALL)
INLINE = re.compile(r"`?(?P<name>[\w-]+)`?\s*[\[(](?P<input>.*)[\])]\s*", re.DOTALL)  # search[the Nile], say(3)
RESULT = "\nObservation:"
THOUGHT = 400  # characters of a thought, where a grammar holds the model to the form


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


class WrittenCalls:
    """The text protocol, bound to an Ask: the prompts it makes, and what it reads from the answers."""

    def __init__(self, ask: Ask, acting: Acting, words: Mapping[str, str]):
        self.ask, self.words, self.tools = ask, words, acting.tools
        own = ask.settings.get("stop") or []
        self.settings: dict = {"stop": [*([own] if isinstance(own, str) else own), RESULT]}
        if acting.constrained:
            self.settings = {"grammar": grammar(acting.tools, ask.chat)}
        self.closing: dict = {"grammar": closing(ask.chat)} if acting.constrained else {}  # of the last answer

    def first(self, question: Asked) -> Asked:
        """The prompt: the tools, the form, the question."""
        text = filled(self.words["form"], tools=listed(self.tools), names=", ".join(t.name for t in self.tools),
                      question=text_of(question))  # fmt: skip
        return reworded(question, text) if self.ask.chat else f"{text}\nThought:"

    def read(self, completion: Completion) -> Said:
        """Raises Unreadable for what is neither a call nor an answer."""
        return read_turn(completion.text, cut_off=completion.finish_reason == "length")

    def after(self, asked: Asked, completion: Completion, told: Said, results: Sequence[str]) -> Asked:
        """The next prompt: what was said, and the result of the action."""
        return self.go_on(asked, completion, f"{RESULT.strip()} {results[0]}")

    def go_on(self, asked: Asked, completion: Completion, words: str) -> Asked:
        """The next prompt, with other words where the result would stand."""
        text = completion.text.partition(RESULT)[0].rstrip()
        return go_on(self.ask, asked, text, words if self.ask.chat else f"\n{words}\nThought:")


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


def grammar(tools: Sequence[Tool], chat: bool) -> str:
    """The form as a Lark grammar of llguidance: a thought of one line, then a call whose arguments keep the
    schema of its tool, or an answer.
    """
    heads = [json.dumps(f"{tool.name}\nAction Input: ") for tool in tools]
    acts = " | ".join(f"act_{n}" for n in range(len(tools)))
    rules = [
        f'start: {json.dumps("Thought: ") if chat else ""} THOUGHT "\\n" (call | answer)',
        f'call: "Action: " ({acts})',
        *(f"act_{n}: {head} arguments_{n}" for n, head in enumerate(heads)),
        *(f"arguments_{n}: %json {json.dumps(compact(tool.schema))}" for n, tool in enumerate(tools)),
        'answer: "Final Answer: " ANSWER',
        f"THOUGHT: /[^\\s][^\\n]{{0,{THOUGHT}}}/",
        "ANSWER: /\\S(.|\\n)*/",
    ]
    return "\n".join(rules)


def closing(chat: bool) -> str:
    """The form of an answer when nothing may be done any more."""
    lead = '"Final Answer: " ' if chat else ""
    return f"start: {lead}ANSWER\nANSWER: /\\S[^\\n]*/"


def compact(schema: dict) -> dict:
    """The schema, with JSON written without white space: with any allowed, a weak model writes it for ever."""
    return {**schema, "x-guidance": {"whitespace_flexible": False}}
