"""Tool calls written in the text, as ReAct has them: Thought / Action / Action Input / Observation.

For any model, trained to call tools or not (Yao et al. 2022, "ReAct: Synergizing Reasoning and Acting in
Language Models"; the lines `Action Input` and `Final Answer` are as LangChain has them since, and the paper's
own `Action: search[…]` is read too). A model of the kernel is held to the form by a grammar, so that its
calls always parse; with any other what it wrote is read as far as it can be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.prompting.ask import Ask, Asked, filled, go_on, reworded, text_of
from jupyter_gpt.prompting.tools.act import Acting, listed
from jupyter_gpt.prompting.tools.tool import Tool
from jupyter_gpt.prompting.tools.turns import RESULT, Said, read_turn
from jupyter_gpt.prompting.tools.worked import Worked, before

ANOTHER = "\nQuestion:"  # who goes on with a question of its own has given its answer
THOUGHT = 400  # characters of a thought, where a grammar holds the model to the form


class WrittenCalls:
    """The text protocol, bound to an Ask: the prompts it makes, and what it reads from the answers."""

    def __init__(self, ask: Ask, acting: Acting, words: Mapping[str, str], shots: Sequence[Worked] = ()):
        self.ask, self.words, self.tools, self.shots = ask, words, acting.tools, shots
        own = ask.settings.get("stop") or []
        stop = [*([own] if isinstance(own, str) else own), ANOTHER]
        self.settings: dict = {"stop": [*stop, RESULT]}
        self.closing: dict = {"stop": stop}  # of the last answer
        if acting.constrained:
            self.settings = {"stop": stop, "grammar": grammar(acting.tools, ask.chat)}
            self.closing["grammar"] = closing(ask.chat)
        if ask.chat and shots:
            self.settings["system"] = self.closing["system"] = None  # it stands among the messages

    def first(self, question: Asked) -> Asked:
        """The prompt: the tools and the form, the examples, the question."""
        form = filled(self.words["form"], tools=listed(self.tools), names=", ".join(t.name for t in self.tools))
        if self.ask.chat and self.shots:
            return before(self.ask, question, form, [turn for shot in self.shots for turn in shot.as_written()])
        shots = "".join(f"Question: {shot.question}\n{shot.as_text()}\n\n" for shot in self.shots)
        text = filled(self.words["ask"], form=form, examples=shots, question=text_of(question))
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
