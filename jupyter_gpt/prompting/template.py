"""Templates: a text with holes that the model fills in one pass; the fixed text is never sampled.

After Guidance (Lundberg, Ribeiro et al. 2023):

    Name: {{gen name max_tokens=5}} Class: {{select class from="mage|thief"}}

`gen` is free text up to the text that follows the hole, or constrained by `regex=` or `json=`; `select` is one of its
choices. `parse` reads a template. In the kernel a sample is constrained by `TemplateConstraint`, segment by segment:
some fixed text, a hole, and the text that ends it. Each segment is one grammar, so fixed text is forced, in the tokens
that the tokenizer would choose, and a token may cross the border between a hole and the text after it. Only the white
space at the end of a fixed text goes with the next hole: a word's token mostly begins with the space before it. The
model ends a free hole by writing the text that follows, or its end-of-text token, which means "done" and is replaced by
that text. At an endpoint the whole template is one regex (`as_regex`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from jupyter_gpt.data.render import fill
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.inference.constrain import RuleConstraint, converted_of, matcher_of
from jupyter_gpt.inference.rules import Rule, compact_json, literal, rule

# Possessive quantifiers: a text that is almost a hole is refused in linear time.
VALUE = r'"(?:[^"\\]|\\.)*+"|' + r"'(?:[^'\\]|\\.)*+'" + r"|[^\s\"'{}]++"
HOLE = re.compile(rf"\{{\{{\s*+(?P<kind>[A-Za-z]\w*+)(?P<rest>(?:\s++(?:\w++=)?+(?:{VALUE}))*+)\s*+\}}\}}")
WORD = re.compile(rf"(?:(?P<key>\w++)=)?+(?P<value>{VALUE})")
SECONDS = 1.0  # that an answer may take to be matched against a pattern of the user's
IS_TEMPLATE = re.compile(r"\{\{\s*(gen|select)\s+[^\s}]")
KNOWN = {"gen": ("max_tokens", "temperature", "stop", "regex", "json"), "select": ("from", "temperature")}
CHARACTERS = 4  # per token, where only characters can be counted
FREE = r"/(?s:.)+/"


@dataclass(frozen=True)
class Hole:
    """`rule` constrains its text, None for free text. After `max_tokens` it ends as soon as it can."""

    name: str
    rule: Rule | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    stop: str = ""


@dataclass(frozen=True)
class Template:
    """`texts[0] holes[0] texts[1] holes[1] … texts[-1]`: always one text more than holes."""

    texts: tuple[str, ...]
    holes: tuple[Hole, ...]


def is_template(text: object) -> bool:
    """Whether a text has a `{{gen name}}` or `{{select name}}`, or something like it: `{{slect …}}`, `{{pick name
    from="a|b"}}`. Other template languages are text."""

    def resembles(hole: re.Match) -> bool:
        keys = {word["key"] for word in WORD.finditer(hole["rest"])}
        ours = {key for known in KNOWN.values() for key in known}
        return bool(hole["rest"]) and bool(keys & ours or get_close_matches(hole["kind"], KNOWN))

    return isinstance(text, str) and bool(IS_TEMPLATE.search(text) or any(map(resembles, HOLE.finditer(text))))


def parse(text: str, variables: Mapping[str, object] | None = None) -> tuple[Template, list[str]]:
    """Parse a template and fill in its `{variables}`. Returns it with the names in braces that have no variable.

    Holes inside a variable's value are plain text. Raises GPTError, one line, for a hole that cannot be read.
    """
    texts, holes, unknown, at = [], [], [], 0

    def fixed(piece: str) -> str:
        other = re.search(r"\{\{\s*+(?:gen|select)\b.*|\{\{(?=[^{}]*\s)[^{}]*+\}\}", piece)
        if other:
            raise GPTError(f'{other[0][:60]} cannot be read: use {{{{gen name}}}} or {{{{select name from="a|b"}}}}')
        filled, names = fill(piece, variables or {})
        unknown.extend(names)
        return filled

    for found in HOLE.finditer(text):
        if not found["rest"] and found["kind"] not in KNOWN:
            continue  # `{{name}}`: the way to write a `{name}` that stays
        texts.append(fixed(text[at : found.start()]))
        holes.append(hole_of(found, variables or {}))
        at = found.end()
    texts.append(fixed(text[at:]))
    check(texts, holes)
    return Template(tuple(texts), tuple(holes)), unknown


def hole_of(found: re.Match, variables: Mapping[str, object]) -> Hole:
    """A hole from its text between double braces."""
    kind, shown = found["kind"], found[0][:60]
    if kind not in KNOWN:
        raise GPTError(f"{shown}: there is no {kind} hole, only gen and select{nearest(kind, KNOWN)}")
    name, given = "", {}
    for word in WORD.finditer(found["rest"]):
        key, value = word["key"], word["value"]
        if key is None and name:
            raise GPTError(f"{shown}: a hole has one name, and then its settings as key=value")
        if key is None:
            name = value.strip("\"'")
        elif key not in KNOWN[kind]:
            raise GPTError(f"{shown}: {kind} takes no {key}{nearest(key, KNOWN[kind])}")
        else:
            given[key] = value_of(key, value, variables, shown)
    if not name.isidentifier():
        raise GPTError(f"{shown}: a hole has the name of the variable that it fills, such as {{{{{kind} name}}}}")
    if kind == "select" and "from" not in given:
        raise GPTError(f'{shown}: a select hole has its choices as from="a|b"')
    if "stop" in given and ("regex" in given or "json" in given):
        raise GPTError(f"{shown}: a regex or a schema says itself where it ends: leave stop out")
    constraint = rule(regex=given.get("regex"), json=given.get("json"), choice=given.get("from"))
    return Hole(name, constraint, given.get("max_tokens"), given.get("temperature"), given.get("stop", ""))


def value_of(key: str, value: str, variables: Mapping[str, object], shown: str) -> object:
    """The value of `key=value`: a number, a text with `\\n` and `\\t` spelled, or what a `$variable` holds."""
    plain = value[1:-1] if value[0] in "\"'" else value
    if value[0] == "$":
        if value[1:] not in variables:
            raise GPTError(f"{shown}: this notebook has no variable {value[1:]}{nearest(value[1:], variables)}")
        return variables[value[1:]]
    if key in ("max_tokens", "temperature"):
        try:
            number = int(plain) if key == "max_tokens" else float(plain)
        except ValueError as error:
            raise GPTError(f"{shown}: {key} is a number, not {plain}") from error
        if number < (key == "max_tokens"):
            raise GPTError(f"{shown}: {key} is at least {int(key == 'max_tokens')}")
        return number
    if key == "regex":
        return plain
    return plain.replace(f"\\{value[0]}", value[0]).replace("\\n", "\n").replace("\\t", "\t")


def check(texts: list[str], holes: list[Hole]) -> None:
    """Raises GPTError for a template that cannot be filled."""
    if not holes:
        raise GPTError("the template has no hole: {{gen name}} is one")
    names = [hole.name for hole in holes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise GPTError(f"the template has two holes named {twice}: each fills a variable of its own")
    for hole, text in zip(holes[:-1], texts[1:], strict=False):
        if not text:
            raise GPTError(f"the template has no text after the hole {hole.name}: put some between it and the next one")
    for hole, text, last in zip(holes, texts[1:], [*[False] * (len(holes) - 1), True], strict=True):
        if hole.stop and not text.startswith(hole.stop) and len(hole.stop) > 1 and not (last and not text):
            raise GPTError(
                f"the stop text of the hole {hole.name} has to be one character, or begin the text after the hole"
            )


# in the kernel


@dataclass(frozen=True)
class Segment:
    """`lead`, the text of `hole`, `end`: the matcher accepts exactly these three and stops, or never stops if
    there is no `end`. `hidden`: the end is a stop text and no part of the template."""

    hole: Hole
    lead: str
    end: str
    matcher: Any
    closing: tuple[int, ...]
    hidden: bool = False


def segments_of(tokenizer, template: Template) -> list[Segment]:
    """The segments of a template, compiled for this tokenizer. Raises GPTError for what cannot be enforced."""
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
        made.append(Segment(hole, lead, end, matcher, closing, hidden))
        lead = after[len(end) :] if not hidden else ""
    if lead:  # the rest of the last text after a stop text
        whole = json.dumps({"grammars": [{"lark_grammar": f"start: {literal(lead)}"}]})
        made.append(Segment(Hole(""), lead, "", matcher_of(tokenizer, whole, "the end of the template"), ()))
    return made


def grammar_of(hole: Hole, lead: str, end: str) -> str:
    """The Lark grammar of one segment: the hole is lazy, so that it ends at the first occurrence of its end."""
    head = f"{literal(lead)} " if lead else ""
    if hole.rule is not None and hole.rule.kind == "json":
        whole = f"start: {head}@part {literal(end) if end else ''}"
        return json.dumps(
            {"grammars": [{"lark_grammar": whole}, {"name": "part", "json_schema": compact_json(hole.rule.what)}]}
        )
    if hole.rule is None:
        until = hole.stop if len(hole.stop) == 1 and not end.startswith(hole.stop) else ""
        body = f"/[^\\x{{{ord(until):x}}}]+/" if until else FREE
        tail = f"({literal(end)} | {literal(until)})" if until else literal(end) if end else ""
    else:
        inner = json.loads(hole.rule.grammar())["grammars"][0]["lark_grammar"]
        body, tail = inner.partition("WHOLE: ")[2], literal(end) if end else ""
    if not tail:
        return json.dumps({"grammars": [{"lark_grammar": f"start: {head}WHOLE\nWHOLE: {body}"}]})
    lark = f"start: {head}hole\nhole[lazy]: WHOLE\nWHOLE: ({body}) {tail}"
    return json.dumps({"grammars": [{"lark_grammar": lark}]})


class TemplateConstraint(RuleConstraint):
    """The engine's `Constraint` for one sample of a template. `prompt`: the tokens of the first fixed text, which are
    part of the prompt; `ids`: the tokens of each segment so far."""

    def __init__(self, tokenizer, segments: list[Segment], ends: frozenset[int], prompt: list[int], max_tokens: int):
        self.segments, self.max_tokens, self.at, self.drawn = segments, max_tokens, 0, 0
        self.ids: list[list[int]] = [[] for _ in segments]
        self.converted = converted_of(tokenizer)
        super().__init__(segments[0].matcher.deep_copy(), self.converted, ends, tokenizer.unk_token_id)
        for id in prompt:
            self.accept(id)

    @property
    def segment(self) -> Segment:
        return self.segments[self.at]

    @property
    def temperature(self) -> float | None:
        return self.segment.hole.temperature

    def closing(self) -> list[int] | None:
        """The tokens that end the hole at once; None if it cannot end yet."""
        if not self.segment.end or self.segment.hidden:
            return [self.last] if self.can_end() else None
        ids = list(self.segment.closing)
        return ids if self.matcher.validate_tokens(ids) == len(ids) else None

    def can_end(self) -> bool:
        """Whether the last hole may end with the end of the text."""
        if not self.segment.hidden:
            return self.matcher.is_accepting()
        return self.matcher.validate_tokens(list(self.segment.closing)) == len(self.segment.closing)

    def mask(self):
        if self.allowed is None:
            super().mask()
            self.allowed[self.ends] = self.closing() is not None
        return self.allowed

    def forced(self) -> list[int]:
        while not (self.over or self.broken) and self.matcher.is_stopped() and not self.matcher.is_error():
            if self.at == len(self.segments) - 1:
                return [self.last]
            self.at, self.drawn = self.at + 1, 0
            self.matcher, self.allowed = self.segment.matcher.deep_copy(), None
        if self.over or self.broken:
            return [self.last]
        if self.drawn >= (self.segment.hole.max_tokens or self.max_tokens) and (closing := self.closing()) is not None:
            return closing
        return self.forced_by_rule()

    def instead(self, id: int) -> list[int]:
        """The end-of-text token, or a stop text, in the middle of the template is replaced by what follows the hole."""
        self.drawn += 1
        segment = self.segment
        if id in self.ends:
            return self.closing() or [id]
        stop = segment.hole.stop.encode()
        text = self.converted.decode_bytes([id])
        if len(stop) == 1 and not segment.end.startswith(segment.hole.stop) and text.endswith(stop):
            return [*self.converted.tokenize_bytes(text[:-1]), *segment.closing]
        return [id]

    def accept(self, id: int) -> None:
        super().accept(id)
        if id not in self.ends:
            self.ids[self.at].append(id)

    @property
    def values(self) -> dict[str, str]:
        """The holes filled so far by name, the current one last."""
        values = {}
        for segment, ids in zip(self.segments[: self.at + 1], self.ids, strict=False):
            text = self.converted.decode_bytes(ids).decode("utf-8", "replace")[len(segment.lead) :]
            values[segment.hole.name] = text.removesuffix(segment.end)
        values.pop("", None)
        return values

    @property
    def done(self) -> bool:
        """Whether every hole is filled."""
        return self.at == len(self.segments) - 1 and not self.broken and (self.over or self.matcher.is_stopped())


# at an endpoint


def as_regex(template: Template, max_tokens: int) -> str:
    """All of a template but its first text as one regex, for servers that enforce one.

    Free text is then on one line and has at most `CHARACTERS` characters per token. Raises GPTError for a JSON hole.
    """
    return "".join(
        f"({body_regex(hole, max_tokens)}){re.escape(text)}"
        for hole, text in zip(template.holes, template.texts[1:], strict=True)
    )


def body_regex(hole: Hole, max_tokens: int) -> str:
    if hole.rule is None:
        without = re.escape(hole.stop) if len(hole.stop) == 1 else ""
        return f"[^\\n{without}]{{1,{CHARACTERS * (hole.max_tokens or max_tokens)}}}"
    if hole.rule.kind == "json":
        raise GPTError(f"the hole {hole.name} is JSON, which an endpoint cannot fill inside a template")
    return "|".join(map(re.escape, hole.rule.what)) if hole.rule.kind == "choice" else f"(?:{hole.rule.what})"


def read_back(template: Template, text: str) -> dict[str, str] | None:
    """The values of the holes, from a filled template's text after its first text.

    None if the text does not match the template, or if matching takes longer than `SECONDS` (a regex with nested
    repetitions could take for ever).
    """
    import regex

    pattern = ""
    for hole, fixed in zip(template.holes, template.texts[1:], strict=True):
        body = "(?:.|\\n)+?" if hole.rule is None else body_regex(hole, 1)
        pattern += f"(?P<{hole.name}>{body}){re.escape(fixed)}"
    try:
        found = regex.fullmatch(pattern, text, timeout=SECONDS)
    except TimeoutError:
        return None
    return found.groupdict() if found else None
