"""Set operations on JSON schemas: excluding one from another, and negation.

They work on flattened schemas (`flatten`), which have some of a schema's conditions and none that it lacks: enough to
show that two schemas have no value in common, and that a value does not satisfy a schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

TYPES = ("null", "boolean", "object", "array", "number", "string")
INFINITE = float("inf")
DEPTH = 4  # of nested properties that are compared
ANNOTATIONS = (  # keywords that restrict nothing
    *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment"),
    *("$schema", "$id", "$anchor", "$dynamicAnchor", "$defs", "definitions", "then", "else"),
)
Schema = Mapping | bool
Ref = Callable[[str], object]  # resolves a `$ref`


def exclude(one: Schema, other: Schema, base: Mapping, ref: Ref, depth: int = DEPTH) -> Schema | None:
    """A condition to add to `one` so that nothing satisfies both it and `other`; True if that is so already, None if
    none is known. `base` contains both: its `type` holds for them too."""
    a, b = flatten(one, ref), flatten(other, ref)
    if not isinstance(a, Mapping) or not isinstance(b, Mapping):
        return True if a is False or b is False else None
    own, theirs = values_of(a, ref), values_of(b, ref)
    if own is not None:
        left = [value for value in own if not (satisfies(value, b) if theirs is None else value in theirs)]
        return True if len(left) == len(own) else {"enum": left} if left else None
    if theirs is not None:
        return None if any(satisfies(value, a) for value in theirs) else True
    mine, others = types_of(a, base), types_of(b, base)
    both = (mine & others) | ({"integer"} if {"integer", "number"} <= mine | others else set())
    if not both or disjoint_ranges(a, b, both):
        return True
    if mine == {"object"}:
        return exclude_object(a, b, ref, depth - 1) if depth else None
    return {"type": sorted(mine - others)} if mine - others and "integer" not in both else None


def exclude_object(a: Mapping, b: Mapping, ref: Ref, depth: int) -> Schema | None:
    """The same for objects: by a property that one of them requires and the other excludes."""
    mine, theirs, needed = a.get("properties", {}), b.get("properties", {}), a.get("required", ())
    closed = b.get("additionalProperties", True) is False and not b.get("patternProperties")
    narrowed = []
    for name in needed:
        found = (
            exclude(mine.get(name, True), theirs[name], {}, ref, depth) if name in theirs else True if closed else None
        )
        if found is True:
            return True
        narrowed += [] if found is None else [{"properties": {name: found}}]
    missing = sorted((name for name in b.get("required", ()) if name not in needed), key=lambda name: name in mine)
    return next(iter([*({"properties": {name: False}} for name in missing), *narrowed]), None)


def disjoint_ranges(a: Mapping, b: Mapping, both: set[str]) -> bool:
    """Whether the ranges of their numbers, lengths or counts do not overlap."""
    bounds = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}
    if both <= {"integer", "number"}:
        low = [max(x.get("minimum", -INFINITE), x.get("exclusiveMinimum", -INFINITE)) for x in (a, b)]
        high = [min(x.get("maximum", INFINITE), x.get("exclusiveMaximum", INFINITE)) for x in (a, b)]
    elif len(both) == 1 and both <= set(bounds):
        least, most = bounds[next(iter(both))]
        low, high = [x.get(least, 0) for x in (a, b)], [x.get(most, INFINITE) for x in (a, b)]
    else:
        return False
    return high[0] < low[1] or high[1] < low[0]


def negate(schema: object, base: object, ref: Ref, depth: int = DEPTH) -> Schema | None:
    """A schema for what satisfies `base` and not `schema`; None if none is known."""
    schema, base = flatten(schema, ref), flatten(base, ref)
    if not isinstance(schema, Mapping) or not isinstance(base, Mapping):
        return None if isinstance(schema, Mapping) else not schema
    types = types_of(base, {})
    asked = {name for name in schema if name not in ANNOTATIONS and not name.startswith(("x-", "content"))}
    values, own = values_of(schema, ref), values_of(base, ref)
    if own is None and types == {"boolean"}:
        own = [False, True]
    if asked <= {"type", "const", "enum"} and (values is not None or own is not None):
        if own is None:
            return None if types & {type_of(value) for value in values} else True
        left = [value for value in own if not satisfies(value, schema)]
        return {"enum": left} if left else False
    if asked == {"type"}:
        excluded = types_of(schema, {})
        left = types - excluded - ({"integer"} if "number" in excluded else set())
        return None if "number" in left and "integer" in excluded else {"type": sorted(left)} if left else False
    if not depth or types != {"object"} or not asked <= {"type", "required", "properties"}:
        return None
    cases: list[Schema] = [{"properties": {name: False}} for name in schema.get("required", ())]
    for name, one in schema.get("properties", {}).items():
        other = negate(one, base.get("properties", {}).get(name, {}), ref, depth - 1)
        if other is None:
            return None
        cases.append({"required": [name], "properties": {name: other}})
    return {"anyOf": cases} if cases else False


def flatten(schema: object, ref: Ref, seen: set[str] | None = None) -> Schema:
    """A schema with its `$ref` and `allOf` merged into it; of two values for a keyword the first one is kept."""
    seen = set() if seen is None else seen
    if not isinstance(schema, Mapping):
        return schema is not False
    found = {name: one for name, one in schema.items() if name not in ("$ref", "allOf")}
    parts = list(schema.get("allOf", ()))
    if isinstance(schema.get("$ref"), str) and schema["$ref"] not in seen:
        seen.add(schema["$ref"])
        parts.insert(0, ref(schema["$ref"]))
    for part in (flatten(one, ref, seen) for one in parts):
        if part is False:
            return False
        for name, one in part.items() if isinstance(part, Mapping) else ():
            if name == "properties":
                found[name] = {**one, **found.get(name, {})}
            elif name == "required":
                found[name] = [*found.get(name, ()), *one]
            elif name != "additionalProperties" or "properties" not in found:  # it belongs to the properties beside it
                found.setdefault(name, one)
    return found


def values_of(schema: object, ref: Ref) -> list | None:
    """The values that a schema lists; None if it lists none."""
    schema = flatten(schema, ref)
    if not isinstance(schema, Mapping):
        return None
    return [schema["const"]] if "const" in schema else list(schema["enum"]) if "enum" in schema else None


def types_of(schema: Mapping, base: Mapping) -> set[str]:
    """The types that a flattened schema allows; `integer` only if it does not allow any number."""
    types = schema.get("type") or base.get("type") or list(TYPES)
    return {types} if isinstance(types, str) else set(types)


def type_of(value: object) -> str:
    """The type of a JSON value."""
    names = {bool: "boolean", str: "string", dict: "object", list: "array", type(None): "null"}
    return names.get(type(value), "number")


def satisfies(value: object, schema: Schema) -> bool:
    """Whether a value satisfies a flattened schema, by the jsonschema library; True if unknown."""
    from jsonschema import Draft202012Validator
    from referencing.exceptions import Unresolvable

    try:
        return Draft202012Validator(schema).is_valid(value)
    except Unresolvable:  # a $ref within it
        return True
