"""What an answer has to be: a regex, JSON of a schema, one of some choices, or a text of a grammar.

A `Rule` is checked when it is made, so that whoever asks is told before anything is sampled: a schema that nothing
can satisfy, or with a keyword that cannot be enforced, is refused, never half-enforced. `constrain` holds an answer
to it token by token; `problem` says of a text that came from elsewhere whether it keeps it.
"""

from __future__ import annotations

import functools
import itertools
import json as encoding
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.schemas import enforceable, inner, pointed

BACKSLASH = "\\"
LONGEST = {"email": 254, "hostname": 253}  # characters (RFC 5321, RFC 1035)
SECONDS = r"\d\d:\d\d:[0-5]\d"  # a 60th is right in some years at midnight only
ESCAPE = re.compile(r"\\(.)", re.DOTALL)
CLASSES = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": r"[\p{L}\p{N}_]",
    "W": r"[^\p{L}\p{N}_]",
    "S": r"[^\s\x1c-\x1f]",
}
REFERENCES = 10_000  # that are followed while a text is checked against a schema
SECONDS_OF_PATTERN = 0.2  # that one pattern of a schema may take on one text
KINDS = ("regex", "json", "choice", "grammar")


@dataclass(frozen=True)
class Rule:
    """One constraint: `kind` is one of `KINDS`; `what` the regex, the schema (a dict), the choices (a tuple), or the
    Lark grammar (a text); `model` the pydantic model that the schema was made of, if any."""

    kind: str
    what: object
    model: type | None = field(default=None, compare=False)

    @property
    def words(self) -> str:
        """The rule in a few words."""
        if self.kind == "choice":
            return "one of " + ", ".join(map(repr, self.what))
        if self.kind == "json":
            name = self.model.__name__ if self.model else self.what.get("title")
            return f"JSON of the schema {name}" if name else ("JSON of a schema" if self.what else "JSON")
        return f"the regex {self.what}" if self.kind == "regex" else "a text of the grammar"

    def grammar(self, lead: str = "", tails: tuple[str, ...] = (), alphabet: str = "") -> str:
        """For llguidance: perhaps `lead`, then what the rule asks for, then perhaps one of `tails`.

        `alphabet`: all characters there are, where a tokenizer has not all. A regex or a choice is then held to them,
        lest it go where it cannot go on.
        """
        head = f"({literal(lead)})? " if lead else ""
        tail = f" ({' | '.join(map(literal, tails))})?" if tails else ""
        if self.kind in ("regex", "choice"):  # one terminal, so that where it ends is never ambiguous
            terms = [in_lark(self.what)] if self.kind == "regex" else map(literal, self.what)
            body = " | ".join(terms)
            if alphabet:
                body = f"({body}) & /[{''.join(f'{BACKSLASH}x{{{ord(one):x}}}' for one in alphabet)}]*/"
            return encoding.dumps({"grammars": [{"lark_grammar": f"start: WHOLE\nWHOLE: {head}({body}){tail}"}]})
        part = (
            {"lark_grammar": self.what}
            if self.kind == "grammar"
            else {"json_schema": compact_json(enforceable(self.what))}
        )
        whole = {"lark_grammar": f"start: {head}@part{tail}"}
        return encoding.dumps({"grammars": [whole, {"name": "part", **part}] if head or tail else [part]})

    def begins_with(self, text: str) -> bool:
        """Whether some text that keeps the rule begins so."""
        matcher = matcher_of(self.grammar()).deep_copy()
        return matcher.try_consume_tokens(list(text.encode())) == len(text.encode())

    def problem(self, text: str) -> str | None:
        """In which way `text` breaks the rule, in a few words; None where it keeps it."""
        if self.kind == "choice":
            return None if text in self.what else f"not {self.words}"
        if self.kind == "json":
            return self.json_problem(text)
        return None if accepts(self.grammar(), text.encode()) else f"not {self.words}"

    def json_problem(self, text: str) -> str | None:
        try:
            found = parsed(text)
        except (ValueError, RecursionError) as error:
            return f"not JSON: {one_line(error)}"
        error = None
        if not accepts(
            self.grammar(), text.encode()
        ):  # JSON that was written in another way, or that breaks the schema
            try:
                error = next(checker(self.what).iter_errors(found), None)
            except TooMuch as much:
                return str(much)
        if error is None and self.model:
            from pydantic import ValidationError

            try:
                self.model.model_validate_json(text)
            except ValidationError as refused:
                first = refused.errors()[0]
                return f"not {self.words}: {'.'.join(map(str, first['loc']))} {first['msg']}".rstrip()
        return error and f"not {self.words}: {one_line(error.message)}"

    def value(self, text: str) -> object:
        """What a text that keeps the rule stands for: of JSON the value or the pydantic object, else the text."""
        if self.kind != "json":
            return text
        return self.model.model_validate_json(text) if self.model else parsed(text)


def rule(regex: object = None, json: object = None, choice: object = None, grammar: object = None) -> Rule | None:
    """The rule of what is given, None where nothing is.

    `regex`: Rust's syntax, the whole answer has to match. `json`: a schema as a mapping or as JSON text, a file of one,
    a pydantic model, or True (any JSON). `choice`: `"a|b|c"` or a list of texts. `grammar`: a Lark grammar with a rule
    `start`, or a file of one. Raises GPTError for two of them at once, and for what cannot be read, enforced or
    satisfied.
    """
    given = {"regex": regex, "json": json, "choice": choice, "grammar": grammar}
    given = {kind: what for kind, what in given.items() if what is not None and what is not False}
    if not given:
        return None
    if len(given) > 1:
        raise GPTError(f"{' and '.join(given)} are two constraints: an answer is held to one, so leave one out")
    ((kind, what),) = given.items()
    made = {"regex": of_regex, "json": of_json, "choice": of_choice, "grammar": of_grammar}[kind](what)
    refuse_what_cannot_be(made)
    return made


def of_regex(regex: object) -> Rule:
    regex = regex.pattern if isinstance(regex, re.Pattern) else regex
    if not isinstance(regex, str) or not regex:
        raise GPTError(f"regex wants a regular expression as text, not {regex!r:.40}")
    return Rule("regex", regex)


def of_choice(choice: object) -> Rule:
    options = choice.split("|") if isinstance(choice, str) else choice
    if not isinstance(options, list | tuple) or not options or not all(isinstance(o, str) and o for o in options):
        raise GPTError(f'choice wants "a|b|c" or a list of texts, none of them empty, not {choice!r:.60}')
    return Rule("choice", tuple(dict.fromkeys(options)))


def of_json(json: object) -> Rule:
    model = None
    if hasattr(json, "model_json_schema"):
        model, schema = json, json.model_json_schema()
    elif json is True or (isinstance(json, str) and json == "true"):
        schema = {}
    elif isinstance(json, Mapping):
        schema = dict(json)
    elif isinstance(json, str | Path) and str(json).strip():
        schema = read_schema(str(json))
    else:
        raise GPTError(f"json wants a schema (a dict, a file, a pydantic model) or true, not {json!r:.40}")
    from jsonschema.exceptions import SchemaError

    try:
        checker(schema).check_schema(schema)
    except SchemaError as error:
        raise GPTError(f"the JSON schema is none: {one_line(error.message)}") from error
    return Rule("json", schema, model)


def read_schema(text: str) -> dict:
    """A schema from JSON text, which begins with a brace, or from the file of that name."""
    where = "the JSON schema" if text.lstrip().startswith("{") else text
    try:
        found = encoding.loads(text if where is not text else Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise GPTError(f"json wants a schema: there is no file {text} ({error.strerror})") from error
    except ValueError as error:
        raise GPTError(f"{where} is not JSON: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise GPTError(f"{where} is no JSON schema that says anything: it has to be an object")
    return found


def of_grammar(grammar: object) -> Rule:
    text = grammar
    if isinstance(grammar, Path) or (isinstance(grammar, str) and ":" not in grammar):
        try:
            text = Path(grammar).read_text(encoding="utf-8")
        except OSError as error:
            raise GPTError(f"grammar wants Lark: {grammar} has no rule `start:`, nor is it a file") from error
    if not isinstance(text, str):
        raise GPTError(f"grammar wants a Lark grammar as text or a file of one, not {grammar!r:.40}")
    return Rule("grammar", text)


def refuse_what_cannot_be(made: Rule) -> None:
    """GPTError where llguidance cannot enforce the rule, or nothing satisfies it."""
    matcher = matcher_of(made.grammar())
    if matcher.is_error():
        raise GPTError(f"{made.words} cannot be enforced: {reason(matcher.get_error())}")
    empty = not matcher.is_accepting() and not any(matcher.compute_bitmask()[:32])  # none of the 256 bytes begins it
    if empty or (made.kind == "json" and not ends(enforceable(made.what))):
        raise GPTError(f"{made.words} cannot be enforced: no text satisfies it")


def ends(schema: object) -> bool:
    """Whether some JSON of the schema comes to an end: one that requires itself, by `$ref`, goes on for ever."""
    pointers, ending = set(pointers_in(schema)), set()
    while more := {pointer for pointer in pointers - ending if one_ends(pointed(pointer, schema), ending)}:
        ending |= more  # parts that end when those found so far do
    return one_ends(schema, ending)


def pointers_in(part: object) -> Iterator[str]:
    """Every `$ref` of a schema."""
    for one in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from pointers_in(one)
    if isinstance(part, dict) and isinstance(part.get("$ref"), str):
        yield part["$ref"]


def one_ends(schema: object, ending: set[str]) -> bool:
    """Whether a part of a schema has a finite JSON, where the parts that `ending` points to have one."""
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return schema is not False
    if "$ref" in schema and schema["$ref"] not in ending:
        return False
    either = [part for name in ("anyOf", "oneOf") for part in schema.get(name, ())]
    if either and not any(one_ends(part, ending) for part in either):
        return False
    if not all(one_ends(part, ending) for part in schema.get("allOf", ())):
        return False
    kinds = schema.get("type", "any")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    first, least = schema.get("prefixItems", []), schema.get("minItems", 0)
    members = {
        "object": [schema.get("properties", {}).get(name, True) for name in schema.get("required", ())],
        "array": first[:least] + ([schema.get("items", True)] if least > len(first) else []),
    }
    return any(all(one_ends(part, ending) for part in members.get(kind, ())) for kind in kinds)


@functools.lru_cache(maxsize=64)
def matcher_of(grammar: str):
    """A matcher of bytes, to be copied before it is told anything."""
    from llguidance import LLMatcher, LLTokenizer

    return LLMatcher(LLTokenizer("byte"), grammar, log_level=0)


def accepts(grammar: str, text: bytes) -> bool:
    """Whether all of `text` is a text of the grammar."""
    matcher = matcher_of(grammar).deep_copy()
    return matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting()


def compact_json(schema: dict) -> dict:
    """The schema with JSON written without white space: with any allowed, a weak model writes it for ever. Formats have
    the longest length that their standard gives them."""
    return {**bounded(schema), "x-guidance": {"whitespace_flexible": False}}


def bounded(part: object) -> object:
    if isinstance(part, list):
        return [bounded(one) for one in part]
    if not isinstance(part, dict):
        return part
    part = inner(part, bounded)
    kind = part["format"] if isinstance(part.get("format"), str) else ""
    if kind in LONGEST:
        return {**part, "maxLength": min(LONGEST[kind], part.get("maxLength", LONGEST[kind]))}
    return {**part, "allOf": [*part.get("allOf", ()), {"pattern": SECONDS}]} if kind in ("time", "date-time") else part


def in_lark(regex: str) -> str:
    """A regex as Lark writes it; `\\d`, `\\w` and `\\S` take nothing that Python's would not, and `\\d` ASCII alone."""
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(re.sub(ESCAPE, lambda found: CLASSES.get(found[1], found[0]), regex), '')}/"


class TooMuch(Exception):
    """Checking a text against a schema takes too long."""


def checker(schema: dict):
    """A validator of the jsonschema library, of the draft that the schema names, which gives up with TooMuch.

    A pattern may take exponential time, and so may references to references: neither is waited for.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend, validator_for

    kind, followed = validator_for(schema, default=Draft202012Validator), itertools.count()

    def limited(keyword: Callable) -> Callable:
        def checked(*arguments):
            if next(followed) > REFERENCES:
                raise TooMuch(f"not checked: the schema follows more than {REFERENCES:,} references")
            yield from keyword(*arguments) or ()

        return checked

    references = {name: limited(kind.VALIDATORS[name]) for name in ("$ref", "$dynamicRef") if name in kind.VALIDATORS}
    return extend(kind, {**references, **KEYWORDS_OF_PATTERNS})(schema)


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern of a schema is found in a text. Raises TooMuch where that takes longer than
    `SECONDS_OF_PATTERN`.
    """
    import regex

    try:
        return regex.search(pattern, text, timeout=SECONDS_OF_PATTERN) is not None
    except TimeoutError:
        raise TooMuch(f"not checked: the pattern {pattern!r:.40} takes too long on it") from None
    except regex.error as error:
        raise TooMuch(f"not checked: the pattern {pattern!r:.40} is not understood ({error})") from None


def of_pattern(validator, pattern, instance, schema):
    from jsonschema import ValidationError

    if validator.is_type(instance, "string") and not matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def of_pattern_properties(validator, patterns, instance, schema):
    for pattern, part in patterns.items() if validator.is_type(instance, "object") else ():
        for name, value in instance.items():
            if matches(pattern, name):
                yield from validator.descend(value, part, path=name, schema_path=pattern)


def of_additional_properties(validator, part, instance, schema):
    from jsonschema import ValidationError

    for name, value in instance.items() if validator.is_type(instance, "object") else ():
        if name in schema.get("properties", ()) or any(matches(p, name) for p in schema.get("patternProperties", ())):
            continue
        if part is False:
            yield ValidationError(f"{name!r} is not among its properties")
        else:
            yield from validator.descend(value, part, path=name)


KEYWORDS_OF_PATTERNS = {
    "pattern": of_pattern,
    "patternProperties": of_pattern_properties,
    "additionalProperties": of_additional_properties,
}


def parsed(text: str) -> object:
    """JSON, without Python's own NaN and Infinity. Raises ValueError."""

    def refuse(name: str):
        raise ValueError(f"{name} is no JSON")

    return encoding.loads(text, parse_constant=refuse)


def literal(text: str) -> str:
    """A text as Lark writes it."""
    return encoding.dumps(text, ensure_ascii=False)


def one_line(said: object) -> str:
    return " ".join(str(said).split())[:160]


def reason(said: str) -> str:
    """What llguidance says is wrong, without its drawing of where, and without what nobody here can set."""
    inner = re.findall(r"error: (.+)", said)
    said = one_line(inner[-1] if inner else re.sub(r"^at \d+\(\d+\): ", "", said.strip().splitlines()[0]))
    if keywords := re.match(r"Unimplemented keys: \[(.+)\]", said):
        return f"{keywords[1].replace(chr(34), '')} cannot be kept token by token"
    return said
