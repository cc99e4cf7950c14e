"""Templates: a text with holes that the model fills in one pass, the fixed text never sampled.

After Guidance (Lundberg, Ribeiro et al. 2023):

    Name: {{gen name max_tokens=5}} Class: {{select class from="mage|thief"}}

`gen` is free text up to the text that follows the hole, or held to `regex=` or `json=`; `select` is one of its
choices. `parse` reads a template; `filling` holds a sample to it; on an endpoint the whole of it is one regex
(`as_regex`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from jupyter_gpt.data.render import fill
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.inference.rules import Rule, rule

# Possessive quantifiers: a text that is almost a hole is refused in linear time.
VALUE = r'"(?:[^"\\]|\\.)*+"|' + r"'(?:[^'\\]|\\.)*+'" + r"|[^\s\"'{}]++"
HOLE = re.compile(rf"\{{\{{\s*+(?P<kind>[A-Za-z]\w*+)(?P<rest>(?:\s++(?:\w++=)?+(?:{VALUE}))*+)\s*+\}}\}}")
WORD = re.compile(rf"(?:(?P<key>\w++)=)?+(?P<value>{VALUE})")
SECONDS = 1.0  # that an answer may take to be matched against a pattern of the user's
IS_TEMPLATE = re.compile(r"\{\{\s*(gen|select)\s+[^\s}]")
KNOWN = {"gen": ("max_tokens", "temperature", "stop", "regex", "json"), "select": ("from", "temperature")}
CHARACTERS = 4  # of a token, where only characters can be counted


@dataclass(frozen=True)
class Hole:
    """`rule` is what fills it, None for free text. `max_tokens`: from so many on it ends as soon as it can."""

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

    def whole(self, values: Mapping[str, str]) -> str:
        """The text with its holes filled."""
        middle = "".join(values[hole.name] + text for hole, text in zip(self.holes, self.texts[1:], strict=True))
        return self.texts[0] + middle


def is_template(text: object) -> bool:
    """Whether a text has a `{{gen name}}` or `{{select name}}`, or what was meant as one: `{{slect …}}`, `{{pick name
    from="a|b"}}`. Other template languages are text.
    """
    return isinstance(text, str) and (IS_TEMPLATE.search(text) is not None or any(map(meant, HOLE.finditer(text))))


def meant(hole: re.Match) -> bool:
    """Whether something of an unknown kind was meant as a hole of ours."""
    keys = {word["key"] for word in WORD.finditer(hole["rest"])}
    ours = {key for known in KNOWN.values() for key in known}
    return bool(hole["rest"]) and bool(keys & ours or get_close_matches(hole["kind"], KNOWN))


def parse(text: str, variables: Mapping[str, object] | None = None) -> tuple[Template, list[str]]:
    """A template, the `{variables}` of its fixed text filled in; and the names in braces that are no variable.

    What is filled in is data: holes in it are none. Raises GPTError, one line, for a hole that is not understood.
    """
    texts, holes, unknown, at = [], [], [], 0

    def fixed(piece: str) -> str:
        filled, names = fill(piece, variables or {})
        unknown.extend(names)
        return filled

    begun = ""
    for found in HOLE.finditer(text):
        if not found["rest"] and found["kind"] not in KNOWN:
            continue  # `{{name}}`: the way to write a `{name}` that stays
        begun = text[at : found.start()]
        refuse_others(begun)
        texts.append(fixed(begun))
        holes.append(hole_of(found, variables or {}))
        at = found.end()
    refuse_others(text[at:])
    texts.append(fixed(text[at:]))
    check(texts, holes)
    return Template(tuple(texts), tuple(holes)), unknown


def refuse_others(piece: str) -> None:
    """GPTError for something between double braces that is neither a hole nor a `{{name}}`."""
    other = re.search(r"\{\{\s*+(?:gen|select)\b.*|\{\{(?=[^{}]*\s)[^{}]*+\}\}", piece)
    if other:
        raise GPTError(f'{other[0][:60]} is no hole: {{{{gen name}}}} or {{{{select name from="a|b"}}}} is')


def hole_of(found: re.Match, variables: Mapping[str, object]) -> Hole:
    kind, shown = found["kind"], found[0][:60]
    if kind not in KNOWN:
        raise GPTError(f"{shown}: there is no {kind} hole, only gen and select{nearest(kind, KNOWN)}")
    name, given = "", {}
    for word in WORD.finditer(found["rest"]):
        key, value = word["key"], word["value"]
        if key is None and name:
            raise GPTError(f"{shown}: a hole has one name, and then what it wants as key=value")
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
    held = rule(regex=given.get("regex"), json=given.get("json"), choice=given.get("from"))
    return Hole(name, held, given.get("max_tokens"), given.get("temperature"), given.get("stop", ""))


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
            raise GPTError(f"the template has no text after the hole {hole.name}: nothing would part it from the next")
    for hole, text, last in zip(holes, texts[1:], [*[False] * (len(holes) - 1), True], strict=True):
        if hole.stop and not text.startswith(hole.stop) and len(hole.stop) > 1 and not (last and not text):
            raise GPTError(
                f"the stop text of the hole {hole.name} has to be one character, or begin the text after the hole"
            )


def as_regex(template: Template, max_tokens: int) -> str:
    """All of a template but its first text as one regex, for servers that keep one.

    Free text is then on one line and has at most `CHARACTERS` characters for each token. Raises GPTError for a hole
    that no regex says.
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
        raise GPTError(f"the hole {hole.name} wants JSON, which no endpoint can be asked for inside a template")
    return "|".join(map(re.escape, hole.rule.what)) if hole.rule.kind == "choice" else f"(?:{hole.rule.what})"


def read_back(template: Template, text: str) -> dict[str, str] | None:
    """The holes of a filled template's text after its first text.

    None where it does not keep the template, or where that takes longer than `SECONDS` to find out: a hole's regex with
    nested repetitions would take for ever.
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
