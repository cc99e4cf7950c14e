"""Worked runs: examples of thinking and acting, for a model that has to be shown (few-shot ReAct, as in Yao et al.
2022).

An example is a question and a run in the form of ReAct, its results among it:

    Thought: I need the price of one pear.
    Action: price
    Action Input: {"fruit": "pear"}
    Observation: 0.55
    Thought: I now know the answer
    Final Answer: 0.55 euros

A small model copies far better than it follows instructions: each turn of an example is a turn of the chat, laid out
exactly as the run itself will be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.ask import Ask, Asked
from jupyter_gpt.prompting.tools.turns import RESULT, Said, Unreadable, read_turn

NEXT = re.compile(r"\n(?=[ \t*]*(?:Thought|Action|Final Answer)[*]*[ \t]*:)")  # where a turn begins after a result


@dataclass(frozen=True)
class Worked:
    """An example: its question, what was said in each turn, and the result that each turn but the last was told."""

    question: str
    turns: tuple[str, ...]
    results: tuple[str, ...]

    def as_text(self) -> str:
        """The run as one text, for a document."""
        told = [*(f"{RESULT} {result}\n" for result in self.results), ""]
        return "".join(turn + then for turn, then in zip(self.turns, told, strict=True))

    def as_written(self) -> list[dict]:
        """The run as a chat, its calls and results in words."""
        heard = (self.question, *(f"{RESULT.strip()} {result}" for result in self.results))
        return [
            {"role": role, "content": text}
            for pair in zip(heard, self.turns, strict=True)
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]

    def as_native(self, number: int) -> list[dict]:
        """The run as a chat with tool calls; `number` is the example's own, for the names of its calls."""
        chat = [{"role": "user", "content": self.question}]
        for at, (said, result) in enumerate(zip(map(read_turn, self.turns), self.results, strict=False)):
            [call], id = said.calls, f"example_{number}_{at}"
            called = {"name": call.name, "arguments": as_json(call.arguments)}
            chat += [
                {
                    "role": "assistant",
                    "content": said.thought,
                    "tool_calls": [{"id": id, "type": "function", "function": called}],
                },
                {"role": "tool", "tool_call_id": id, "name": call.name, "content": result},
            ]
        return [*chat, {"role": "assistant", "content": read_turn(self.turns[-1]).answer}]


def worked(question: str, text: str) -> Worked:
    """An example from its texts. Raises GPTError for a run that does not come to an answer in this form."""
    first, *rest = text.strip().split(RESULT)
    turns, results = [first.strip()], []
    for piece in rest:
        result, *turn = NEXT.split(piece, maxsplit=1)
        results.append(result.strip())
        turns.append("".join(turn).strip())
    try:
        said: list[Said] = [read_turn(turn) for turn in turns]
    except Unreadable as wrong:
        raise GPTError(f"the example {question!r:.60} is no run of --react: {wrong}") from None
    if [one.answer is not None for one in said] != [False] * len(results) + [True]:
        raise GPTError(
            f"the example {question!r:.60} is no run of --react: each Action has an Observation after it, and "
            "a Final Answer ends it"
        )
    return Worked(question, tuple(turns), tuple(results))


def before(ask: Ask, question: Asked, form: str, shown: Sequence[dict]) -> list[dict]:
    """A chat of the system prompt with `form` in it, the examples `shown`, and the question alone, as theirs are."""
    turns = [{"role": "user", "content": question}] if isinstance(question, str) else question
    system = [ask.settings.get("system"), *(m["content"] for m in turns if m["role"] == "system"), form]
    words = "\n\n".join(filter(None, system))
    head = [{"role": "system", "content": words}] if words else []
    return [*head, *shown, *(m for m in turns if m["role"] != "system")]


def as_json(arguments: object) -> str:
    """A call's arguments as servers have them: JSON, in a text."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
