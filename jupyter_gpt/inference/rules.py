"""Constraints on an answer: a regex, a JSON schema, choices, or a grammar.

A `Rule` is checked when it is made, before anything is sampled: a schema that nothing can satisfy, or with a keyword
that cannot be enforced, is refused and never enforced in part. `constrain` applies it token by token; `Rule.problem`
validates a text that came from elsewhere.
"""

from __future__ import annotations

import functools
import itertools
import json as encoding
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.imports import without_iri_grammar
from jupyter_gpt.inference.schemas import annotations, check_size, enforceable, map_subschemas, resolve

BACKSLASH = "\\"
LONGEST = {"email": 254, "hostname": 253}  # characters (RFC 5321, RFC 1035)
SECONDS = r"\d\d:\d\d:[0-5]\d"  # leap seconds excluded
ESCAPE = re.compile(r"\\(.)", re.DOTALL)
CLASSES = {"d": "[0-9]", "D": "[^0-9]", "w": r"[\p{L}\p{N}_]", "W": r"[^\p{L}\p{N}_]", "S": r"[^\s\x1c-\x1f]"}
REFERENCES = 10_000  # that are followed in one validation
PATTERN_SECONDS = 0.2  # that one pattern of a schema may take on one text
KINDS = ("regex", "json", "choice", "grammar")


@dataclass(frozen=True)
class Rule:
    """One constraint: `kind` is one of `KINDS`; `what` the regex, the schema (a dict), the choices (a tuple), or the
    Lark grammar (a text); `model` the pydantic model of the schema, if any."""

    kind: str
    what: Any
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

    @property
    def note(self) -> str:
        """The note on a completion under this rule."""
        if self.kind == "grammar":
            return "constrained by grammar"
        unknown = ", ".join(sorted(annotations(self.what))) if self.kind == "json" else ""
        more = f"; not checked, as the format is not known: {unknown}" if unknown else ""
        return f"constrained {'by' if self.kind == 'regex' else 'to'} {self.words}{more}"

    def grammar(self, lead: str = "", tails: tuple[str, ...] = (), alphabet: str = "") -> str:
        """For llguidance: optionally `lead`, then the constrained text, then optionally one of `tails`.

        `alphabet`: the characters of a tokenizer that lacks some. A regex or a choice is restricted to them, so that it
        cannot run into a dead end.
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
        """Whether some valid text begins so."""
        matcher = matcher_of(self.grammar()).deep_copy()
        return matcher.try_consume_tokens(list(text.encode())) == len(text.encode())

    def problem(self, text: str) -> str | None:
        """Why `text` is not valid, in a few words; None if it is."""
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
        """The value of a valid text: of JSON the parsed value or the pydantic object, else the text."""
        if self.kind != "json":
            return text
        return self.model.model_validate_json(text) if self.model else parsed(text)


def rule(regex: object = None, json: object = None, choice: object = None, grammar: object = None) -> Rule | None:
    """The rule of the given constraint, None if there is none.

    `regex`: Rust's syntax, the whole answer has to match. `json`: a schema as a mapping or JSON text, a file with one,
    a pydantic model, or True (any JSON). `choice`: `"a|b|c"` or a list of texts. `grammar`: a Lark grammar with a rule
    `start`, or a file with one. Raises GPTError for two of them at once, and for what cannot be read, enforced or
    satisfied.
    """
    given = {"regex": regex, "json": json, "choice": choice, "grammar": grammar}
    given = {kind: what for kind, what in given.items() if what is not None and what is not False}
    if not given:
        return None
    if len(given) > 1:
        raise GPTError(f"{' and '.join(given)} are two constraints, and an answer takes one: leave one out")
    ((kind, what),) = given.items()
    made = {"regex": of_regex, "json": of_json, "choice": of_choice, "grammar": of_grammar}[kind](what)
    check_enforceable(made)
    return made


def of_regex(regex: object) -> Rule:
    regex = regex.pattern if isinstance(regex, re.Pattern) else regex
    if not isinstance(regex, str) or not regex:
        raise GPTError(f"expected a regular expression as text for regex, got {regex!r:.40}")
    return Rule("regex", regex)


def of_choice(choice: object) -> Rule:
    if isinstance(choice, str) and "," in choice and "|" not in choice:
        several = "|".join(part.strip() for part in choice.split(","))
        raise GPTError(f"choices are separated by |, as in {several!r:.60}; a list may hold one that has a comma")
    options = choice.split("|") if isinstance(choice, str) else choice
    if not isinstance(options, list | tuple) or not options or not all(isinstance(o, str) and o for o in options):
        raise GPTError(f'expected "a|b|c" or a list of non-empty texts for choice, got {choice!r:.60}')
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
        raise GPTError(f"expected a schema (a dict, a file, a pydantic model) or true for json, got {json!r:.40}")
    with without_iri_grammar():
        from jsonschema.exceptions import SchemaError
    check_size(schema)
    try:
        checker(schema).check_schema(schema)
    except SchemaError as error:
        raise GPTError(f"the JSON schema is not valid: {one_line(error.message)}") from error
    return Rule("json", schema, model)


def read_schema(text: str) -> dict:
    """A schema from JSON text, which begins with a brace, or from the file of that name."""
    where = "the JSON schema" if text.lstrip().startswith("{") else text
    try:
        found = encoding.loads(text if where is not text else Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise GPTError(f"expected a schema for json: there is no file {text} ({error.strerror})") from error
    except ValueError as error:
        raise GPTError(f"{where} is not JSON: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise GPTError(f"{where} is not a JSON schema: it has to be an object")
    return found


def of_grammar(grammar: object) -> Rule:
    text = grammar
    if isinstance(grammar, Path) or (isinstance(grammar, str) and ":" not in grammar):
        try:
            text = Path(grammar).read_text(encoding="utf-8")
        except OSError as error:
            raise GPTError(f"expected a Lark grammar with a rule `start:`, or a file of one, got {grammar}") from error
    if not isinstance(text, str):
        raise GPTError(f"expected a Lark grammar as text or a file of one, got {grammar!r:.40}")
    return Rule("grammar", text)


def check_enforceable(made: Rule) -> None:
    """Raises GPTError if llguidance cannot enforce the rule, or nothing satisfies it."""
    matcher = matcher_of(made.grammar()).deep_copy()  # other threads copy the original meanwhile
    if matcher.is_error():
        raise GPTError(f"{made.words} cannot be enforced: {reason(matcher.get_error())}")
    empty = not matcher.is_accepting() and not any(matcher.compute_bitmask()[:32])  # none of the 256 bytes begins it
    if empty or (made.kind == "json" and not is_finite(enforceable(made.what))):
        raise GPTError(f"{made.words} cannot be enforced: no text satisfies it")


def is_finite(schema: object) -> bool:
    """Whether some JSON of the schema is finite: one that requires itself, by `$ref`, is not."""
    pointers, finite = set(pointers_in(schema)), set()
    while more := {pointer for pointer in pointers - finite if part_is_finite(resolve(pointer, schema), finite)}:
        finite |= more  # parts that are finite if those found so far are
    return part_is_finite(schema, finite)


def pointers_in(part: object) -> Iterator[str]:
    """Every `$ref` of a schema."""
    for one in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from pointers_in(one)
    if isinstance(part, dict) and isinstance(part.get("$ref"), str):
        yield part["$ref"]


def part_is_finite(schema: object, finite: set[str]) -> bool:
    """Whether a part of a schema has finite JSON, if the parts that `finite` points to have some."""
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return schema is not False
    if "$ref" in schema and schema["$ref"] not in finite:
        return False
    either = [part for name in ("anyOf", "oneOf") for part in schema.get(name, ())]
    if either and not any(part_is_finite(part, finite) for part in either):
        return False
    if not all(part_is_finite(part, finite) for part in schema.get("allOf", ())):
        return False
    kinds = schema.get("type", "any")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    first, least = schema.get("prefixItems", []), schema.get("minItems", 0)
    members = {
        "object": [schema.get("properties", {}).get(name, True) for name in schema.get("required", ())],
        "array": first[:least] + ([schema.get("items", True)] if least > len(first) else []),
    }
    return any(all(part_is_finite(part, finite) for part in members.get(kind, ())) for kind in kinds)


@functools.lru_cache(maxsize=64)
def matcher_of(grammar: str):
    """A matcher of bytes, to be copied before use."""
    from llguidance import LLMatcher, LLTokenizer

    return LLMatcher(LLTokenizer("byte"), grammar, log_level=0)


def accepts(grammar: str, text: bytes) -> bool:
    """Whether the whole of `text` matches the grammar."""
    matcher = matcher_of(grammar).deep_copy()
    return matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting()


def compact_json(schema: dict) -> dict:
    """The schema for JSON without white space (a weak model that may write any writes it for ever), with formats
    limited to the length that their standard allows."""
    return {**bounded(schema), "x-guidance": {"whitespace_flexible": False}}


def bounded(part: object) -> object:
    if isinstance(part, list):
        return [bounded(one) for one in part]
    if not isinstance(part, dict):
        return part
    part = map_subschemas(part, bounded)
    kind = part["format"] if isinstance(part.get("format"), str) else ""
    if kind in LONGEST:
        return {**part, "maxLength": min(LONGEST[kind], part.get("maxLength", LONGEST[kind]))}
    return {**part, "allOf": [*part.get("allOf", ()), {"pattern": SECONDS}]} if kind in ("time", "date-time") else part


def in_lark(regex: str) -> str:
    """A regex in Lark's syntax; `\\d`, `\\w` and `\\S` match nothing that Python's would not, and `\\d` only ASCII."""
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(re.sub(ESCAPE, lambda found: CLASSES.get(found[1], found[0]), regex), '')}/"


class TooMuch(Exception):
    """Validating a text against a schema takes too long."""


def checker(schema: dict):
    """A jsonschema validator for the schema's draft that gives up with TooMuch: patterns, and references to references,
    may take exponential time."""
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
    """Whether a schema's pattern occurs in a text. Raises TooMuch if that takes longer than `PATTERN_SECONDS`."""
    import regex

    try:
        return regex.search(pattern, text, timeout=PATTERN_SECONDS) is not None
    except TimeoutError:
        raise TooMuch(f"not checked: the pattern {pattern!r:.40} takes too long on it") from None
    except regex.error as error:
        raise TooMuch(f"not checked: the pattern {pattern!r:.40} is not valid ({error})") from None


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
            yield ValidationError(f"{name!r} is not one of its properties")
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
    """A text as a Lark literal."""
    return encoding.dumps(text, ensure_ascii=False)


def one_line(text: object) -> str:
    return " ".join(str(text).split())[:160]


def reason(message: str) -> str:
    """An error message of llguidance in one line, without its drawing of the place."""
    inner = re.findall(r"error: (.+)", message)
    message = one_line(inner[-1] if inner else re.sub(r"^at \d+\(\d+\): ", "", message.strip().splitlines()[0]))
    if keywords := re.match(r"Unimplemented keys: \[(.+)\]", message):
        return f"{keywords[1].replace(chr(34), '')} is not supported"
    return message
