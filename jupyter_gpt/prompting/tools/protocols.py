"""How a model calls tools: written in the text (`WrittenCalls`, for any model) or as it was trained to (`NativeCalls`).

Written calls have ReAct's form (Yao et al. 2022, "ReAct: Synergizing Reasoning and Acting in Language Models"), with
the lines `Action Input` and `Final Answer` as LangChain has them; the paper's own `Action: search[…]` is read too. A
model of the kernel is constrained to the form by a grammar, so that its calls always parse. Native calls go through the
chat template or the server's `tools`: a call comes back as data (`completion.calls`), and its result is a message of
the role `tool`.

Few-shot examples are whole runs in ReAct's form, with their results. A small model copies far better than it follows
instructions: each turn of an example is a turn of the chat, laid out exactly as the run itself will be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.inference.rules import compact_json
from jupyter_gpt.inference.tool_calls import as_text
from jupyter_gpt.prompting.ask import Ask, Asked, follow_up, format_template, text_of, with_text
from jupyter_gpt.prompting.tools.act import listed
from jupyter_gpt.prompting.tools.approval import Toolset
from jupyter_gpt.prompting.tools.tool import Tool

ANSWERED = re.compile(r"^[ \t*]*Final Answer[*]*[ \t]*:[*]*[ \t]*(?P<answer>.*)", re.MULTILINE | re.DOTALL)
ACTION = re.compile(r"^[ \t*]*Action[*]*[ \t]*:[*]*[ \t]*(?P<action>[^\n]*)", re.MULTILINE)
INPUT = re.compile(r"\A\s*[*]*Action Input[*]*[ \t]*:[*]*[ \t]*(?P<input>.*)", re.DOTALL)
INLINE = re.compile(r"`?(?P<name>[\w-]+)`?\s*[\[(](?P<input>.*)[\])]\s*", re.DOTALL)  # search[the Nile], say(3)
NEXT = re.compile(r"\n(?=[ \t*]*(?:Thought|Action|Final Answer)[*]*[ \t]*:)")  # where a turn begins after a result
RESULT = "\nObservation:"
ANOTHER = "\nQuestion:"  # a model that goes on with a question of its own has given its answer
SPACE = '" "?'  # a document goes on after "Thought:" with a space, or with a token that begins with one
THOUGHT = 400  # characters of a thought under the grammar


class Unreadable(Exception):
    """What the model wrote is neither a call nor an answer; the message says why."""


@dataclass(frozen=True)
class Call:
    """A call as the model wrote it: `arguments` a text or a mapping, not checked yet."""

    name: str
    arguments: object
    id: str = ""


@dataclass(frozen=True)
class Turn:
    """One turn of the model: its thought, and calls or else an answer."""

    thought: str
    calls: tuple[Call, ...] = ()
    answer: str | None = None


def read_turn(text: str, cut_off: bool = False) -> Turn:
    """The thought, and the action or the final answer, whichever comes first."""

    def thought(part: str) -> str:
        return re.sub(r"\A\s*\**Thought\**\s*:\s*", "", part).strip()

    text = text.partition(RESULT)[0]
    answer, action = ANSWERED.search(text), ACTION.search(text)
    if answer and (action is None or answer.start() < action.start()):
        if not answer["answer"].strip():
            raise Unreadable("the Final Answer is empty")
        return Turn(thought(text[: answer.start()]), answer=answer["answer"].strip())
    if action is None:
        raise Unreadable("it has neither an Action nor a Final Answer" + (", it was cut off" if cut_off else ""))
    before, name = thought(text[: action.start()]), action["action"].strip(" \t`*")
    if given := INPUT.match(text[action.end() :]):
        return Turn(before, (Call(name, given["input"].strip()),))
    if inline := INLINE.fullmatch(text[action.start("action") :].strip()):
        return Turn(before, (Call(inline["name"], inline["input"].strip()),))
    raise Unreadable("the Action has no Action Input")


@dataclass(frozen=True)
class ExampleRun:
    """A worked example: its question, the text of each turn, and the result after each turn but the last."""

    question: str
    turns: tuple[str, ...]
    results: tuple[str, ...]

    def as_text(self) -> str:
        """The run as one text, for a document."""
        then = [*(f"{RESULT} {result}\n" for result in self.results), ""]
        return "".join(map("".join, zip(self.turns, then, strict=True)))

    def as_written(self) -> list[dict]:
        """The run as a chat, its calls and results in words."""
        user = (self.question, *(f"{RESULT.strip()} {result}" for result in self.results))
        return [
            {"role": role, "content": text}
            for pair in zip(user, self.turns, strict=True)
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]

    def as_native(self, number: int) -> list[dict]:
        """The run as a chat with tool calls; `number` is the example's own, for the ids of its calls."""
        chat = [{"role": "user", "content": self.question}]
        for at, (turn, result) in enumerate(zip(map(read_turn, self.turns), self.results, strict=False)):
            [call], id = turn.calls, f"example_{number}_{at}"
            function = {"name": call.name, "arguments": as_text(call.arguments)}
            calls = [{"id": id, "type": "function", "function": function}]
            chat += [
                {"role": "assistant", "content": turn.thought, "tool_calls": calls},
                {"role": "tool", "tool_call_id": id, "name": call.name, "content": result},
            ]
        return [*chat, {"role": "assistant", "content": read_turn(self.turns[-1]).answer}]


def example_run(question: str, text: str) -> ExampleRun:
    """An example from its texts. Raises GPTError for a run that does not come to an answer in this form."""
    first, *rest = text.strip().split(RESULT)
    turns, results = [first.strip()], []
    for piece in rest:
        result, *turn = NEXT.split(piece, maxsplit=1)
        results.append(result.strip())
        turns.append("".join(turn).strip())
    try:
        answered = [read_turn(turn).answer is not None for turn in turns]
    except Unreadable as wrong:
        raise GPTError(f"the example {question!r:.60} is no run of --react: {wrong}") from None
    if answered != [False] * len(results) + [True]:
        raise GPTError(
            f"the example {question!r:.60} is no run of --react: each Action has an Observation after it, and "
            "a Final Answer ends it"
        )
    return ExampleRun(question, tuple(turns), tuple(results))


def chat_with_examples(ask: Ask, question: Asked, form: str, examples: Sequence[dict]) -> list[dict]:
    """A chat of the system prompt with `form` in it, the messages of the examples, and the question."""
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    system = [ask.settings.get("system"), *(m["content"] for m in messages if m["role"] == "system"), form]
    text = "\n\n".join(filter(None, system))
    head = [{"role": "system", "content": text}] if text else []
    return [*head, *examples, *(m for m in messages if m["role"] != "system")]


class WrittenCalls:
    """Calls in the text: the prompts to send, and what is read from the answers."""

    repair = "repair"

    def __init__(self, ask: Ask, toolset: Toolset, texts: Mapping[str, str], examples: Sequence[ExampleRun] = ()):
        self.ask, self.texts, self.tools, self.examples = ask, texts, toolset.tools, examples
        stop = ask.stops(ANOTHER)
        self.settings: dict = {"stop": [*stop, RESULT]}
        self.closing: dict = {"stop": stop}  # settings of the last answer
        if toolset.constrained:
            self.settings = {"stop": stop, "grammar": turn_grammar(toolset.tools, ask.chat)}
            self.closing["grammar"] = closing_grammar(ask.chat)
        if ask.chat and examples:
            self.settings["system"] = self.closing["system"] = None  # it is among the messages

    def first(self, question: Asked) -> Asked:
        """The prompt: the tools and the form, the examples, the question."""
        names = ", ".join(tool.name for tool in self.tools)
        form = format_template(self.texts["form"], tools=listed(self.tools), names=names)
        if self.ask.chat and self.examples:
            messages = [message for example in self.examples for message in example.as_written()]
            return chat_with_examples(self.ask, question, form, messages)
        shown = "".join(f"Question: {example.question}\n{example.as_text()}\n\n" for example in self.examples)
        text = format_template(self.texts["ask"], form=form, examples=shown, question=text_of(question))
        return with_text(question, text) if self.ask.chat else f"{text}\nThought:"

    def read(self, completion: Completion) -> Turn:
        """Raises Unreadable for what is neither a call nor an answer."""
        return read_turn(completion.text, cut_off=completion.finish_reason == "length")

    def after(self, asked: Asked, completion: Completion, turn: Turn, results: Sequence[str]) -> Asked:
        """The next prompt: the turn, and the result of its action."""
        return self.reply(asked, completion, f"{RESULT.strip()} {results[0]}")

    def reply(self, asked: Asked, completion: Completion, text: str) -> Asked:
        """The next prompt, with a text of ours in place of a result."""
        turn = completion.text.partition(RESULT)[0].rstrip()
        return follow_up(self.ask, asked, turn, text if self.ask.chat else f"\n{text}\nThought:")


class NativeCalls:
    """The model's own tool calls, with the same methods."""

    repair = "repair_native"

    def __init__(self, ask: Ask, toolset: Toolset, texts: Mapping[str, str], examples: Sequence[ExampleRun] = ()):
        self.ask, self.texts, self.examples = ask, texts, examples
        self.settings: dict = {"tools": [tool.as_dict() for tool in toolset.tools]}
        self.closing: dict = {}  # no tools for the last answer
        if examples:
            self.settings["system"] = self.closing["system"] = None  # it is among the messages

    def first(self, question: Asked) -> Asked:
        """The question as a chat, after the examples."""
        text = format_template(self.texts["native"], question=text_of(question)).strip()
        if self.examples:
            messages = [m for number, example in enumerate(self.examples) for m in example.as_native(number)]
            return chat_with_examples(self.ask, with_text(question, text), "", messages)
        return [*([] if isinstance(question, str) else question[:-1]), {"role": "user", "content": text}]

    def read(self, completion: Completion) -> Turn:
        """Raises Unreadable for a broken call, and for no word at all."""
        if completion.broken_call:
            raise Unreadable(completion.broken_call)
        calls = tuple(Call(c["name"], c["arguments"], c.get("id", "")) for c in completion.calls)
        text = completion.text.strip()
        if not calls and not text:
            raise Unreadable("it is empty")
        return Turn(text, calls) if calls else Turn("", answer=text)

    def after(self, asked: Asked, completion: Completion, turn: Turn, results: Sequence[str]) -> Asked:
        """The next prompt: the calls, and each one's result."""
        ids = [call.id or f"call_{n}" for n, call in enumerate(turn.calls)]
        calls = [
            {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for id, call in zip(ids, turn.calls, strict=True)
        ]
        replies = [
            {"role": "tool", "tool_call_id": id, "name": call.name, "content": result}
            for id, call, result in zip(ids, turn.calls, results, strict=True)
        ]
        return [*asked, {"role": "assistant", "content": turn.thought, "tool_calls": calls}, *replies]

    def reply(self, asked: Asked, completion: Completion, text: str) -> Asked:
        """The next prompt, with a text of ours."""
        return [*asked, {"role": "assistant", "content": completion.text or "…"}, {"role": "user", "content": text}]


def turn_grammar(tools: Sequence[Tool], chat: bool) -> str:
    """The form as a Lark grammar: a thought of one line, then a call with arguments of its tool's schema, or an
    answer."""
    heads = [json.dumps(f"{tool.name}\nAction Input: ") for tool in tools]
    acts = " | ".join(f"act_{n}" for n in range(len(tools)))
    rules = [
        f'start: {json.dumps("Thought: ") if chat else SPACE} THOUGHT "\\n" (call | answer)',
        f'call: "Action: " ({acts})',
        *(f"act_{n}: {head} arguments_{n}" for n, head in enumerate(heads)),
        *(f"arguments_{n}: %json {json.dumps(compact_json(tool.schema))}" for n, tool in enumerate(tools)),
        'answer: "Final Answer: " ANSWER',
        f"THOUGHT: /[^\\s][^\\n]{{0,{THOUGHT}}}/",
        "ANSWER: /\\S(.|\\n)*/",
    ]
    return "\n".join(rules)


def closing_grammar(chat: bool) -> str:
    """The form of the last answer."""
    lead = '"Final Answer: "' if chat else SPACE
    return f"start: {lead} ANSWER\nANSWER: /\\S[^\\n]*/"
