"""Filling a template: one sample held to it, as the engine's Constraint.

The template is walked stretch by stretch: some fixed text, a hole, and the text that ends it. Each stretch is one
grammar, so what is fixed is forced and never sampled, in the tokens that the tokenizer would choose, and a token may
reach over the border between a hole and the text after it. Only the white space at the end of a fixed text goes
with the next hole: a word's token mostly begins with the space before it.

The model ends a free hole by writing the text that follows, or its end-of-text token in the middle of a template,
which means "done" and is replaced by that text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from jupyter_gpt.inference.constrain import Held, converted_of, matcher_of
from jupyter_gpt.inference.rules import compact, literal
from jupyter_gpt.prompting.template import Hole, Template

FREE = r"/(?s:.)+/"


@dataclass(frozen=True)
class Stretch:
    """`lead`, what fills `hole`, `end`: the matcher takes exactly these three and stops, or goes on for ever where
    there is no `end`. `hidden`: the end is a stop text, and no part of the template."""

    hole: Hole
    lead: str
    end: str
    matcher: object
    closing: tuple[int, ...]
    hidden: bool = False


def stretches(tokenizer, template: Template) -> list[Stretch]:
    """The template for this tokenizer. Raises GPTError for what cannot be enforced."""
    made, lead = [], template.texts[0]
    for n, (hole, after) in enumerate(zip(template.holes, template.texts[1:], strict=True)):
        last = n == len(template.holes) - 1
        hidden = bool(last and not after and hole.stop)
        end = hole.stop if hidden or (hole.stop and after.startswith(hole.stop)) else after
        if end == after and not last:
            end = after.rstrip() or after
        grammar = grammar_of(hole, lead, end)
        matcher = matcher_of(tokenizer, grammar, f"the hole {hole.name}")
        closing = tuple(converted_of(tokenizer).tokenize_str(end)) if end else ()
        made.append(Stretch(hole, lead, end, matcher, closing, hidden))
        lead = after[len(end) :] if not hidden else ""
    if lead:  # what a stop text left over of the last text
        whole = json.dumps({"grammars": [{"lark_grammar": f"start: {literal(lead)}"}]})
        made.append(Stretch(Hole(""), lead, "", matcher_of(tokenizer, whole, "the end of the template"), ()))
    return made


def grammar_of(hole: Hole, lead: str, end: str) -> str:
    """Lark of one stretch: the hole is lazy, so that it ends where its end first stands."""
    head = f"{literal(lead)} " if lead else ""
    if hole.rule is not None and hole.rule.kind == "json":
        whole = f"start: {head}@part {literal(end) if end else ''}"
        return json.dumps(
            {"grammars": [{"lark_grammar": whole}, {"name": "part", "json_schema": compact(hole.rule.what)}]}
        )
    if hole.rule is None:
        apart = hole.stop if len(hole.stop) == 1 and not end.startswith(hole.stop) else ""
        body = f"/[^\\x{{{ord(apart):x}}}]+/" if apart else FREE
        tail = f"({literal(end)} | {literal(apart)})" if apart else literal(end) if end else ""
    else:
        inner = json.loads(hole.rule.grammar())["grammars"][0]["lark_grammar"]
        body, tail = inner.partition("WHOLE: ")[2], literal(end) if end else ""
    if not tail:
        return json.dumps({"grammars": [{"lark_grammar": f"start: {head}WHOLE\nWHOLE: {body}"}]})
    lark = f"start: {head}hole\nhole[lazy]: WHOLE\nWHOLE: ({body}) {tail}"
    return json.dumps({"grammars": [{"lark_grammar": lark}]})


class Filling(Held):
    """One sample of a template. `ids` are the tokens of each stretch so far, those of the prompt among them."""

    def __init__(self, tokenizer, parts: list[Stretch], ends: frozenset[int], begun: list[int], most: int):
        self.parts, self.most, self.at, self.drawn = parts, most, 0, 0
        self.ids: list[list[int]] = [[] for _ in parts]
        self.converted = converted_of(tokenizer)
        super().__init__(parts[0].matcher.deep_copy(), self.converted, ends, tokenizer.unk_token_id)
        for id in begun:
            self.accept(id)

    @property
    def temperature(self) -> float | None:
        return self.parts[self.at].hole.temperature

    def closing(self) -> list[int] | None:
        """The tokens that end the hole at once; None where it cannot end yet."""
        part = self.parts[self.at]
        if not part.end or part.hidden:
            return [self.last] if self.can_end() else None
        ids = list(part.closing)
        return ids if self.matcher.validate_tokens(ids) == len(ids) else None

    def can_end(self) -> bool:
        """Whether the last hole may end with the end of the text."""
        part = self.parts[self.at]
        if not part.hidden:
            return self.matcher.is_accepting()
        return self.matcher.validate_tokens(list(part.closing)) == len(part.closing)

    def mask(self):
        if self.allowed is None:
            super().mask()
            self.allowed[self.ends] = self.closing() is not None
        return self.allowed

    def forced(self) -> list[int]:
        while not (self.over or self.broken) and self.matcher.is_stopped() and not self.matcher.is_error():
            if self.at == len(self.parts) - 1:
                return [self.last]
            self.at, self.drawn = self.at + 1, 0
            self.matcher, self.allowed = self.parts[self.at].matcher.deep_copy(), None
        if self.over or self.broken:
            return [self.last]
        most = self.parts[self.at].hole.max_tokens or self.most
        if self.drawn >= most and (closing := self.closing()) is not None:
            return closing
        return self.go_on()

    def instead(self, id: int) -> list[int]:
        """The end-of-text token, or a stop text, in the middle of the template stands for what follows the hole."""
        self.drawn += 1
        part = self.parts[self.at]
        if id in self.ends:
            return self.closing() or [id]
        stop = part.hole.stop.encode()
        said = self.converted.decode_bytes([id])
        if len(stop) == 1 and not part.end.startswith(part.hole.stop) and said.endswith(stop):
            return [*self.converted.tokenize_bytes(said[:-1]), *part.closing]
        return [id]

    def accept(self, id: int) -> None:
        super().accept(id)
        if id not in self.ends:
            self.ids[self.at].append(id)

    @property
    def values(self) -> dict[str, str]:
        """The holes filled so far by name; the one under way last."""
        found = {}
        for part, ids in zip(self.parts[: self.at + 1], self.ids, strict=False):
            text = self.converted.decode_bytes(ids).decode("utf-8", "replace")
            body = text[len(part.lead) :]
            found[part.hole.name] = body.removesuffix(part.end) if part.end else body
        found.pop("", None)
        return found

    @property
    def done(self) -> bool:
        """Whether every hole is filled."""
        return self.at == len(self.parts) - 1 and not self.broken and (self.over or self.matcher.is_stopped())
