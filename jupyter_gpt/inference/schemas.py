"""Rewriting JSON schemas in the keywords that llguidance enforces.

`oneOf`, `not`, `if`, `dependentRequired`, `propertyNames` and a few others are rewritten, always so that what satisfies
the new schema satisfies the old one; sometimes fewer texts do. Each alternative of a `oneOf` is narrowed until nothing
that satisfies it can satisfy another one (`exclude`), and left out if that is not possible. A schema that cannot be
rewritten is refused: it is never enforced in part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import permutations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.disjoint_schemas import Ref, Schema, exclude, negate, satisfies, values_of

LITERAL = ("const", "enum", "default", "examples", "example")  # values, in which nothing is a keyword
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")  # schemas by name, not keywords
FORMATS = ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid", "unknown")
DEEPEST, LARGEST = 100, 10_000  # levels, and parts with every $ref in place: compiling takes a few seconds at most
UNIQUE = 1_000  # arrays of different listed values that are written out
DRAFT = "https://json-schema.org/draft/2020-12/schema"
OLD = ("draft-03", "draft-04", "draft-06", "draft-07")  # they ignore everything beside a $ref


def enforceable(schema: dict) -> dict:
    """The schema in keywords that can be enforced. Raises GPTError, one line, for one that cannot be rewritten."""
    old = any(draft in str(schema.get("$schema", "")) for draft in OLD)
    try:
        schema = {**modern(schema, anchors_in(schema), old), "$schema": DRAFT}
        return rewrite(schema, partial(resolve, root=schema))
    except RecursionError:
        raise refuse("it is nested too deeply") from None


def check_size(schema: dict) -> None:
    """Raises GPTError for a schema that would take minutes to compile."""
    level, depth = [schema], 0
    while level := [one for part in level for one in inside(part)]:
        depth += 1
        if depth > DEEPEST:
            raise refuse(f"it is nested deeper than {DEEPEST} levels")
    sizes: dict[str, int] = {}

    def size(part: object) -> int:
        pointer = part.get("$ref") if isinstance(part, dict) else None
        used = {k: v for k, v in part.items() if k not in ("$defs", "definitions")} if isinstance(part, dict) else part
        total = 1 + sum(map(size, inside(used)))
        if isinstance(pointer, str):
            if pointer not in sizes:
                sizes[pointer] = 0  # a part of itself
                sizes[pointer] = size(resolve(pointer, schema))
            total += sizes[pointer]
        return total

    try:
        parts = size(schema)
    except RecursionError:
        raise refuse("it is nested too deeply") from None
    if parts > LARGEST:
        raise refuse(f"it has more than {LARGEST:,} parts, counted with every $ref in place")


def inside(part: object) -> list:
    """The lists and objects in a part."""
    values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [one for one in values if isinstance(one, dict | list)]


def annotations(part: object) -> set[str]:
    """The formats of a schema that are not known: by the standard they are annotations and restrict nothing."""
    found = set().union(*map(annotations, inside(part))) if inside(part) else set()
    kind = part.get("format") if isinstance(part, dict) else None
    return found | {kind} if isinstance(kind, str) and kind not in FORMATS else found


def modern(part: object, anchors: Mapping[str, str], old: bool) -> object:
    """Translate to draft 2020-12: nothing beside an old `$ref`, no list of `items`, no `exclusiveMinimum: true`, no
    anchors in a `$ref`."""
    if isinstance(part, list):
        return [modern(one, anchors, old) for one in part]
    if not isinstance(part, dict):
        return part
    new = map_subschemas(part, lambda one: modern(one, anchors, old))
    if isinstance(new.get("$ref"), str):
        new["$ref"] = anchors.get(new["$ref"], new["$ref"])
        if old:
            new = {name: new[name] for name in ("$schema", "$ref", "definitions") if name in new}
    if isinstance(new.get("items"), list):
        new["prefixItems"] = new.pop("items")
        if "additionalItems" in new:
            new["items"] = new.pop("additionalItems")
    for bound, name in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(new.get(name), bool) and new.pop(name) and bound in new:
            new[name] = new.pop(bound)
    return new


def map_subschemas(schema: Mapping, change: Callable[[object], object]) -> dict:
    """The schema with `change` applied to each direct subschema."""
    return {
        name: one
        if name in LITERAL
        else {key: change(value) for key, value in one.items()}
        if name in NAMED and isinstance(one, dict)
        else change(one)
        for name, one in schema.items()
    }


def anchors_in(part: object, path: str = "#") -> dict[str, str]:
    """The path of each `#name`."""
    named = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    found: dict[str, str] = {}
    for name, one in named:
        found |= anchors_in(one, f"{path}/{str(name).replace('~', '~0').replace('/', '~1')}")
    if isinstance(part, dict) and isinstance(part.get("$anchor"), str):
        found[f"#{part['$anchor']}"] = path
    return found


def resolve(pointer: str, root: dict) -> object:
    """The part of the schema that a `$ref` points to; True, which allows anything, if there is none."""
    found: object = root
    for step in pointer.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and step.isdigit() and int(step) < len(found):
            found = found[int(step)]
        else:
            found = found.get(step, True) if isinstance(found, dict) else True
    return found


def rewrite(part: object, ref: Ref) -> object:
    """Rewrite a part. Comparisons always use the original parts."""
    if isinstance(part, list):
        return [rewrite(one, ref) for one in part]
    if not isinstance(part, dict):
        return part
    new = map_subschemas(part, lambda one: rewrite(one, ref))
    if isinstance(new.get("format"), str) and new["format"] not in FORMATS:
        del new["format"]
    for keyword, rewriting in REWRITINGS.items():
        if keyword in new:
            new = rewriting(new, part, ref)
    return new


def replaced(schema: Mapping, keywords: tuple[str, ...], *more: Schema) -> dict:
    """The schema without some keywords, and with `more` conditions."""
    rest = {name: one for name, one in schema.items() if name not in keywords}
    return {**rest, "allOf": [*rest.get("allOf", ()), *more]} if more else rest


def refuse(why: str) -> GPTError:
    return GPTError(f"the JSON schema cannot be enforced: {why}")


def one_of(new: dict, was: dict, ref: Ref) -> dict:
    """`oneOf` as `anyOf` of alternatives that exclude one another."""
    if not isinstance(was["oneOf"], list):
        return new  # no keyword, but a property of that name
    alternatives = []
    for n, one in enumerate(was["oneOf"]):
        more = [exclude(one, other, was, ref) for i, other in enumerate(was["oneOf"]) if i != n]
        if None not in more:
            alternatives.append({"allOf": [new["oneOf"][n], *(one for one in more if one is not True)]})
    if not alternatives:
        raise refuse("what satisfies one alternative of its oneOf may satisfy another too; anyOf would allow that")
    return replaced(new, ("oneOf",), {"anyOf": alternatives})


def negated(new: dict, was: dict, ref: Ref) -> dict:
    """`not` as a schema for what is left."""
    left = negate(was["not"], replaced(was, ("not",)), ref)
    if left is None:
        raise refuse("its not excludes something else than types, listed values, or properties")
    return replaced(new, ("not",), left)


def conditional(new: dict, was: dict, ref: Ref) -> dict:
    """`if`, `then` and `else` as the two cases."""
    keywords = ("if", "then", "else")
    other = negate(was["if"], replaced(was, keywords), ref)
    if other is None:
        raise refuse("its if asks for something else than types, listed values, or properties")
    cases = ([new["if"], new.get("then", True)], [other, new.get("else", True)])
    return replaced(new, keywords, {"anyOf": [{"allOf": case} for case in cases]})


def dependent(new: dict, was: dict, ref: Ref, keyword: str) -> dict:
    """A dependency: the property is absent, or what it requires is present."""
    cases = []
    for name, needs in new[keyword].items():
        there = {"required": [name, *needs]} if isinstance(needs, list) else {"required": [name], "allOf": [needs]}
        cases.append({"anyOf": [{"properties": {name: False}}, there]})
    return replaced(new, (keyword,), *cases)


def property_names(new: dict, was: dict, ref: Ref) -> dict:
    """Listed names, or names that match a pattern, as the only properties."""
    names, known, more = new["propertyNames"], new.get("properties", {}), new.get("additionalProperties", True)
    rest, listed = replaced(new, ("propertyNames",)), values_of(names, ref)
    if names is True or names == {"type": "string"}:
        return rest
    if "patternProperties" not in new and listed is not None:
        wanted = {name: known.get(name, more) for name in listed if isinstance(name, str)}
        return {**rest, "properties": wanted, "additionalProperties": False}
    if "patternProperties" not in new and isinstance(names, dict) and set(names) - {"type"} == {"pattern"}:
        matching = {name: one for name, one in known.items() if satisfies(name, names)}
        return {
            **rest,
            "properties": matching,
            "patternProperties": {names["pattern"]: more},
            "additionalProperties": False,
        }
    raise refuse("its propertyNames are neither listed nor of one pattern, or are combined with patternProperties")


def unique(new: dict, was: dict, ref: Ref) -> dict:
    """`uniqueItems` is dropped where it restricts nothing; arrays of few listed values are written out; elsewhere it
    stays, and is refused."""
    if new["uniqueItems"] is False or new.get("maxItems", 2) < 2:
        return replaced(new, ("uniqueItems",))
    values = values_of(was.get("items", True), ref)
    if values is None or "prefixItems" in was or was.get("type") != "array":
        return new
    counts = range(was.get("minItems", 0), min(len(values), was.get("maxItems", len(values))) + 1)
    if sum(math.perm(len(values), count) for count in counts) > UNIQUE:
        return new
    arrays = [list(array) for count in counts for array in permutations(values, count)]
    return {**replaced(new, ("uniqueItems", "items", "minItems", "maxItems", "type")), "enum": arrays}


def unevaluated(new: dict, was: dict, ref: Ref) -> dict:
    """`unevaluatedProperties` as `additionalProperties`, if no other part restricts properties."""
    others = ("$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "additionalProperties")
    if any(name in was for name in others):
        return new
    return {**replaced(new, ("unevaluatedProperties",)), "additionalProperties": new["unevaluatedProperties"]}


REWRITINGS = {
    "propertyNames": property_names,
    "unevaluatedProperties": unevaluated,
    "uniqueItems": unique,
    "oneOf": one_of,
    "not": negated,
    "if": conditional,
    **{name: partial(dependent, keyword=name) for name in ("dependentRequired", "dependentSchemas", "dependencies")},
}
