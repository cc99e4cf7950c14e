"""Tool calls as a model was trained to write them, learned from its chat template.

Every model writes calls in its own way: `<tool_call>{"name": …, "arguments": …}</tool_call>`, `[TOOL_CALLS] [{…}]`, or
bare JSON with "parameters". Instead of a table of models, the template is applied to a call that we know, and what
surrounds that call is its form. A template whose calls are not JSON, or that ignores tools, has no form: its model gets
tools in words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from jupyter_gpt.errors import GPTError

NAME, KEY, VALUE = "jupyter_gpt_tool", "jupyter_gpt_key", "jupyter-gpt-value"  # a call that occurs nowhere else
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {KEY: {"type": "string"}}, "required": [KEY]},
    },
}
ASKED = {"role": "user", "content": "?"}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": NAME, "arguments": {KEY: VALUE}}}],
}


class NoToolCalls(GPTError):
    """A server, or a model's template, does not take tools."""


@dataclass(frozen=True)
class Form:
    """How a model writes a call: `before`, JSON with its name and arguments under the keys `name` and `arguments`,
    `after`."""

    before: str
    after: str
    name: str
    arguments: str

    def read(self, text: str) -> tuple[str, list[dict]]:
        """The text before the first call, and the calls, each with `name` and `arguments`.

        Raises ValueError, in a few words, for a call that cannot be parsed.
        """
        mark = self.before.strip()
        at = text.find(mark) if mark else 0 if text.lstrip().startswith("{") else -1
        if at < 0:
            return text, []
        found, rest = [], text[at + len(mark) :]
        while True:
            call, rest = self.one(rest)
            found.append(call)
            rest = rest.lstrip()
            again = rest.find(mark) if mark else -1
            if rest.startswith((",", ";")):
                rest = rest[1:]
            elif again >= 0:
                rest = rest[again + len(mark) :]
            else:
                return text[:at].strip(), found

    def one(self, text: str) -> tuple[dict, str]:
        """The call that `text` begins with, and the rest."""
        text = text.lstrip(" \n[")
        try:
            value, end = json.JSONDecoder(strict=False).raw_decode(text)
        except ValueError as error:
            raise ValueError(f"the tool call is not JSON: {error}") from None
        if not isinstance(value, dict) or not isinstance(value.get(self.name), str) or self.arguments not in value:
            raise ValueError(f'the tool call has not the form {{"{self.name}": …, "{self.arguments}": …}}')
        return {"name": value[self.name], "arguments": value[self.arguments]}, text[end:]


def gather(calls: dict[int, dict], pieces: object) -> None:
    """Add a piece of `tool_calls` as servers stream them: `name` comes once, `arguments` bit by bit.

    Raises Garbage for anything else.
    """
    from jupyter_gpt.inference.remote_errors import Garbage

    for place, piece in enumerate(pieces if isinstance(pieces, list) else [pieces]):
        function = piece.get("function") if isinstance(piece, dict) else None
        if not isinstance(function, dict):
            raise Garbage("with JSON that is no tool call")
        number = piece.get("index")
        call = calls.setdefault(place if number is None else number, {"name": "", "arguments": "", "id": ""})
        call["id"] = call["id"] or piece.get("id") or ""
        call["name"] = call["name"] or function.get("name") or ""
        arguments = function.get("arguments") or ""
        call["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)


def sendable(message: dict) -> dict:
    """A message as servers take it: the arguments of a call are JSON in a string."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": as_text(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def as_text(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def read_calls(completion, tokenizer) -> None:
    """Parse the tool calls in a completion of this kernel, special tokens included, into its `calls`."""
    form = form_of(tokenizer)
    if form is None:
        raise NoToolCalls(f"the chat template of {completion.model} does not support tool calls")
    for sample in completion.samples:
        whole = tokenizer.decode(sample.tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for end in ends_of(tokenizer):
            whole = whole.removesuffix(end)
        try:
            text, sample.calls = form.read(whole)
        except ValueError as wrong:
            sample.broken_call = str(wrong)
        else:
            sample.text = text if sample.calls else sample.text


def form_of(tokenizer) -> Form | None:
    """The form of the calls of a tokenizer's chat template; None if it has none, or not in JSON."""
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        asked = tokenizer.apply_chat_template([ASKED], tools=[TOOL], tokenize=False, add_generation_prompt=True)
        plain = tokenizer.apply_chat_template([ASKED], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([ASKED, CALLED], tools=[TOOL], tokenize=False)
    except (TemplateError, ValueError, TypeError, KeyError):  # a template without tools may fail in any way
        return None
    if NAME not in asked or asked == plain or VALUE not in whole:
        return None
    same = next((i for i, (a, b) in enumerate(zip(asked, whole, strict=False)) if a != b), min(len(asked), len(whole)))
    return form_around(whole[same:], ends_of(tokenizer))


def form_around(answer: str, ends: Sequence[str]) -> Form | None:
    """The form of an answer that contains our call."""
    for at in (i for i, character in enumerate(answer) if character == "{"):
        try:
            value, size = json.JSONDecoder().raw_decode(answer[at:])
        except ValueError:
            continue
        if not isinstance(value, dict):
            continue
        name = next((key for key, v in value.items() if v == NAME), None)
        arguments = next((key for key, v in value.items() if v == {KEY: VALUE}), None)
        if name and arguments:
            after = answer[at + size :]
            for end in ends:
                after = after.partition(end)[0]
            return Form(answer[:at], after.rstrip(), name, arguments)
    return None


def ends_of(tokenizer) -> list[str]:
    """The texts of the special tokens that may end a turn."""
    from jupyter_gpt.data.render import end_of_turn

    ids = {tokenizer.eos_token_id, end_of_turn(tokenizer)} - {None}
    return tokenizer.convert_ids_to_tokens(list(ids))
