"""Tool calls as the model was trained to make them: through its chat template, or its server's `tools`.

The tools travel beside the messages, a call comes back as data (`completion.calls`), and its result is a
message of the role `tool`. Nothing has to be explained in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.prompting.ask import Ask, Asked, filled, reworded, text_of
from jupyter_gpt.prompting.tools.act import Acting, as_schemas
from jupyter_gpt.prompting.tools.turns import Call, Said, Unreadable
from jupyter_gpt.prompting.tools.worked import Worked, before


class NativeCalls:
    """The model's own protocol, with the same methods as `WrittenCalls`."""

    def __init__(self, ask: Ask, acting: Acting, words: Mapping[str, str], shots: Sequence[Worked] = ()):
        self.ask, self.words, self.shots = ask, words, shots
        self.settings: dict = {"tools": as_schemas(acting.tools)}
        self.closing: dict = {}  # of the last answer: no tools
        if shots:
            self.settings["system"] = self.closing["system"] = None  # it stands among the messages

    def first(self, question: Asked) -> Asked:
        """The question as a chat; how to go about it, and the examples, stand before it."""
        text = filled(self.words["native"], question=text_of(question)).strip()
        if self.shots:
            shown = [turn for number, shot in enumerate(self.shots) for turn in shot.as_native(number)]
            return before(self.ask, reworded(question, text), "", shown)
        turns = [] if isinstance(question, str) else question[:-1]
        return [*turns, {"role": "user", "content": text}]

    def read(self, completion: Completion) -> Said:
        """Raises Unreadable for a broken call, and for no word at all."""
        if completion.broken_call:
            raise Unreadable(completion.broken_call)
        calls = tuple(Call(c["name"], c["arguments"], c.get("id", "")) for c in completion.calls)
        text = completion.text.strip()
        if not calls and not text:
            raise Unreadable("it is empty")
        return Said(text, calls) if calls else Said("", answer=text)

    def after(self, asked: Asked, completion: Completion, told: Said, results: Sequence[str]) -> Asked:
        """The next prompt: the calls, and each one's result."""
        made = [
            {
                "id": call.id or f"call_{n}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for n, call in enumerate(told.calls)
        ]
        came = [
            {"role": "tool", "tool_call_id": one["id"], "name": call.name, "content": result}
            for one, call, result in zip(made, told.calls, results, strict=True)
        ]
        return [*asked, {"role": "assistant", "content": told.thought, "tool_calls": made}, *came]

    def go_on(self, asked: Asked, completion: Completion, words: str) -> Asked:
        """The next prompt, with words of ours."""
        return [*asked, {"role": "assistant", "content": completion.text or "…"}, {"role": "user", "content": words}]
