"""What two JSON schemas have in common, and what keeps one and not the other.

Both are read from `flat` schemas, which have some of a schema's conditions and never one that it has not: enough to
show that two schemas have no value in common, and that a value does not keep a schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

TYPES = ("null", "boolean", "object", "array", "number", "string")
INFINITE = float("inf")
DEEP = 4  # properties within properties that are compared
ASSERTIONS = frozenset(
    [
        "type",
        "const",
        "enum",
        "required",
        "properties",
        "items",
        "prefixItems",
        "additionalItems",
        "additionalProperties",
        "patternProperties",
        "pattern",
        "format",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "contains",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "uniqueItems",
        "propertyNames",
        "unevaluatedProperties",
        "unevaluatedItems",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "$ref",
        "$dynamicRef",
    ]
)
Schema = Mapping | bool
Ref = Callable[[str], object]  # what a `$ref` stands for


def apart(one: Schema, other: Schema, base: Mapping, ref: Ref, deep: int = DEEP) -> Schema | None:
    """What to ask of `one` besides, so that nothing that keeps it keeps `other`; True where that is so already, None
    where it
    cannot be had. `base` is where both stand: its `type` is theirs too."""
    a, b = flat(one, ref), flat(other, ref)
    if not isinstance(a, Mapping) or not isinstance(b, Mapping):
        return True if a is False or b is False else None
    own, theirs = values_of(a, ref), values_of(b, ref)
    if own is not None:
        left = [value for value in own if not (keeps(value, b) if theirs is None else value in theirs)]
        return True if len(left) == len(own) else {"enum": left} if left else None
    if theirs is not None:
        return None if any(keeps(value, a) for value in theirs) else True
    mine, others = types_of(a, base), types_of(b, base)
    both = (mine & others) | ({"integer"} if {"integer", "number"} <= mine | others else set())
    if not both or ranges_apart(a, b, both):
        return True
    if mine == {"object"}:
        return objects_apart(a, b, ref, deep - 1) if deep else None
    return {"type": sorted(mine - others)} if mine - others and "integer" not in both else None


def objects_apart(a: Mapping, b: Mapping, ref: Ref, deep: int) -> Schema | None:
    """The same for objects: by a property that the one has to have and the other cannot, or the other way round."""
    mine, theirs, needed = a.get("properties", {}), b.get("properties", {}), a.get("required", ())
    closed = b.get("additionalProperties", True) is False and not b.get("patternProperties")
    narrowed = []
    for name in needed:
        found = apart(mine.get(name, True), theirs[name], {}, ref, deep) if name in theirs else True if closed else None
        if found is True:
            return True
        narrowed += [] if found is None else [{"properties": {name: found}}]
    missing = sorted((name for name in b.get("required", ()) if name not in needed), key=lambda name: name in mine)
    return next(iter([*({"properties": {name: False}} for name in missing), *narrowed]), None)


def ranges_apart(a: Mapping, b: Mapping, both: set[str]) -> bool:
    """Whether the numbers, lengths or counts of the one end where those of the other begin."""
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


def opposite(schema: object, base: object, ref: Ref, deep: int = DEEP) -> Schema | None:
    """What keeps `base` and not `schema`; None where no words for that are known."""
    schema, base = flat(schema, ref), flat(base, ref)
    if not isinstance(schema, Mapping) or not isinstance(base, Mapping):
        return None if isinstance(schema, Mapping) else not schema
    asked, types = {name for name in schema if name in ASSERTIONS}, types_of(base, {})
    values, own = values_of(schema, ref), values_of(base, ref)
    if own is None and types == {"boolean"}:
        own = [False, True]
    if asked <= {"type", "const", "enum"} and (values is not None or own is not None):
        if own is None:
            return None if types & {type_of(value) for value in values} else True
        left = [value for value in own if not keeps(value, schema)]
        return {"enum": left} if left else False
    if asked == {"type"}:
        gone = types_of(schema, {})
        left = types - gone - ({"integer"} if "number" in gone else set())
        return None if "number" in left and "integer" in gone else {"type": sorted(left)} if left else False
    if not deep or types != {"object"} or not asked <= {"type", "required", "properties"}:
        return None
    cases: list[Schema] = [{"properties": {name: False}} for name in schema.get("required", ())]
    for name, one in schema.get("properties", {}).items():
        other = opposite(one, base.get("properties", {}).get(name, {}), ref, deep - 1)
        if other is None:
            return None
        cases.append({"required": [name], "properties": {name: other}})
    return {"anyOf": cases} if cases else False


def flat(schema: object, ref: Ref, seen: set[str] | None = None) -> Schema:
    """A schema with what its `$ref` and `allOf` ask written into it; where two of them have a keyword, the first
    one's.
    """
    seen = set() if seen is None else seen
    if not isinstance(schema, Mapping):
        return schema is not False
    found = {name: one for name, one in schema.items() if name not in ("$ref", "allOf")}
    parts = list(schema.get("allOf", ()))
    if isinstance(schema.get("$ref"), str) and schema["$ref"] not in seen:
        seen.add(schema["$ref"])
        parts.insert(0, ref(schema["$ref"]))
    for part in (flat(one, ref, seen) for one in parts):
        if part is False:
            return False
        for name, one in part.items() if isinstance(part, Mapping) else ():
            if name == "properties":
                found[name] = {**one, **found.get(name, {})}
            elif name == "required":
                found[name] = [*found.get(name, ()), *one]
            elif name != "additionalProperties" or "properties" not in found:  # which is of the properties beside it
                found.setdefault(name, one)
    return found


def values_of(schema: object, ref: Ref) -> list | None:
    """The values that a schema lists; None where it lists none."""
    schema = flat(schema, ref)
    if not isinstance(schema, Mapping):
        return None
    return [schema["const"]] if "const" in schema else list(schema["enum"]) if "enum" in schema else None


def types_of(schema: Mapping, base: Mapping) -> set[str]:
    """The types that a flat schema allows, `integer` among them only where it is not any number."""
    said = schema.get("type") or base.get("type") or list(TYPES)
    return {said} if isinstance(said, str) else set(said)


def type_of(value: object) -> str:
    """The type of a JSON value."""
    names = {bool: "boolean", str: "string", dict: "object", list: "array", type(None): "null"}
    return names.get(type(value), "number")


def keeps(value: object, schema: Schema) -> bool:
    """Whether a value keeps a flat schema, by the jsonschema library; True where that is not known."""
    from jsonschema import Draft202012Validator
    from referencing.exceptions import Unresolvable

    try:
        return Draft202012Validator(schema).is_valid(value)
    except Unresolvable:  # a $ref within it
        return True
