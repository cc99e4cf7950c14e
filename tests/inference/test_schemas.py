"""Schemas as they are met in the world: what is enforced is enforced wholly, by another library's judgement; the rest
is refused.

The texts are drawn at random byte by byte from what the mask allows, which is all that a model adds likelihoods to.
"""

import functools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.rules import accepts, matcher_of, rule

SCHEMAS = json.loads((Path(__file__).parent / "schemas.json").read_text(encoding="utf-8"))
REFUSED = {
    "oneOf numbers overlapping": "what satisfies one alternative of its oneOf may satisfy another too",
    "if of a string": "its if asks for something else than types, listed values, or properties",
    "not const": "its not excludes something else",
    "not object": "its not excludes something else",
    "unique": "uniqueItems is not supported",
    "contains": "contains is not supported",
    "unevaluated allOf": "unevaluatedProperties is not supported",
    "lookahead": "look-around",
}
ALLOWED = [name for name in SCHEMAS if name not in REFUSED]
CLOSING = [ord(c) for c in '"]},']  # preferred, so that texts end
VALUES = [
    0,
    1,
    7,
    10,
    15,
    100,
    500,
    2.5,
    "",
    "a",
    "xy",
    "12345",
    "K1A",
    True,
    False,
    None,
    {},
    [],
    [1],
    [1, "a"],
    [[0, 1]],
]


def checker(schema):
    return validator_for(schema, default=Draft202012Validator)(schema)


def drawn(grammar, rng, most=400):
    """One text of the grammar; None where it does not end in `most` bytes."""
    matcher, text = matcher_of(grammar).deep_copy(), bytearray()
    while len(text) < most:
        if matcher.is_stopped() or (matcher.is_accepting() and rng.random() < 0.5):
            return bytes(text)
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")[:256]
        allowed = [int(i) for i in np.flatnonzero(bits)]
        allowed = [i for i in allowed if 32 <= i < 127] or allowed
        closing = [i for i in allowed if i in CLOSING]
        text.append(rng.choice(closing if closing and rng.random() < 0.45 else allowed))
        assert matcher.consume_token(text[-1])
    return None


@pytest.mark.parametrize("name", ALLOWED)
def test_whatever_is_drawn_keeps_the_schema(name):
    schema, rng = SCHEMAS[name], random.Random(0)
    made, judge = rule(json=schema), checker(schema)
    texts = [drawn(made.grammar(), rng) for _ in range(20)]
    values = [json.loads(text) for text in texts if text is not None]
    assert len(values) >= 15
    for value in values:
        assert next(judge.iter_errors(value), None) is None, value


def words_of(part, names, values):
    """The names of properties and the listed values that a schema speaks of."""
    for key, one in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key in ("properties", "dependentRequired", "dependencies", "dependentSchemas", "required"):
            names.update(one)
        values += [one] if key == "const" else one if key == "enum" else []
        words_of(one, names, values)


def test_no_value_is_let_through_that_the_schema_forbids_and_few_are_kept_out():
    """Values made of a schema's own words: extra properties, those of another alternative, values at the edge."""
    rng, kept, valid = random.Random(1), 0, 0
    for name in ALLOWED:
        names, values = set(), []
        words_of(SCHEMAS[name], names, values)
        names, values = [*sorted(names), "zz"], values + VALUES
        made, judge = rule(json=SCHEMAS[name]).grammar(), checker(SCHEMAS[name])

        def value(deep, names=names, values=values):
            if rng.random() < (0.75 if not deep else 0.25):
                some = rng.sample(names, min(len(names), rng.choice([0, 1, 1, 2, 2, 3])))
                return {one: value(deep + 1) for one in (sorted(some) if rng.random() < 0.5 else some)}
            return [value(deep + 1) for _ in range(rng.choice([1, 2]))] if rng.random() < 0.1 else rng.choice(values)

        for _ in range(400):
            one = value(0)
            is_valid, is_kept = judge.is_valid(one), accepts(made, json.dumps(one, separators=(",", ":")).encode())
            assert is_valid or not is_kept, (name, one)
            kept, valid = kept + is_kept, valid + is_valid
    assert valid > 1500 and kept > 0.9 * valid, (
        "the rest is in another order, or was given up to tell alternatives apart"
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_enforced_says_why_and_advises_nothing_that_cannot_be_done(name):
    with pytest.raises(GPTError) as refused:
        rule(json=SCHEMAS[name])
    said = str(refused.value)
    assert REFUSED[name] in said and "\n" not in said
    assert "coerce" not in said and "Enable" not in said and "Unimplemented" not in said


def keeps(schema, *values):
    made = rule(json=schema).grammar()
    return [accepts(made, json.dumps(value, separators=(",", ":")).encode()) for value in values]


def test_alternatives_are_kept_apart():
    either = {
        "oneOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
        ]
    }
    assert keeps(either, {"a": 1}, {"b": 1}, {"a": 1, "b": 1}, {"b": 1, "a": 1}, {}) == [
        True,
        True,
        False,
        False,
        False,
    ]
    within = {"oneOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["a", "b"]}]}
    assert keeps(within, {"a": 1}, {"a": 1, "b": 2}) == [True, False], (
        "the wider one without the other; the narrower never"
    )
    assert keeps({"oneOf": [{"type": ["string", "null"]}, {"type": "string"}]}, None, "x") == [True, False]
    nested = {"oneOf": [{"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}, {"enum": [2, 4]}]}
    assert keeps(nested, 1, 3, 4) == [True, True, True]
    deep = {
        "type": "object",
        "properties": {"p": {"oneOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
        "required": ["p"],
        "$defs": {"n": {"allOf": [{"type": "object"}, {"required": ["p"]}], "properties": {"p": {"$ref": "#"}}}},
    }
    assert keeps(deep, {"p": None}, {"p": 1}) == [True, False]


def test_names_of_keywords_may_be_names_of_properties():
    schema = {
        "type": "object",
        "properties": {
            "oneOf": {"type": "integer"},
            "not": {"type": "string"},
            "if": {"const": 1},
            "enum": {"oneOf": [{"const": 2}, {"type": "null"}]},
        },
        "required": ["oneOf"],
        "additionalProperties": False,
    }
    assert keeps(schema, {"oneOf": 1}, {"oneOf": 1, "not": "x", "enum": 2}, {"oneOf": "x"}) == [True, True, False]


def test_a_schema_without_end_is_refused_and_one_of_many_parts_is_not():
    endless = {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}]}},
    }
    with pytest.raises(GPTError):
        rule(json=endless)
    assert keeps({"oneOf": [{"const": n} for n in range(200)]}, 7, 199, 200) == [True, True, False]
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(20)} | {"d20": {"type": "integer"}}
    assert keeps({"oneOf": [{"$ref": "#/$defs/d18"}, {"type": "string"}], "$defs": twice}, 1, "x") == [True, True]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"properties": {f"p{n}": {"type": "string"} for n in range(20_000)}}, "more than 10,000 parts"),
        (
            {
                "$defs": {"a0": {"type": "string"}}
                | {f"a{n + 1}": {"allOf": [{"$ref": f"#/$defs/a{n}"}] * 2} for n in range(22)},
                "$ref": "#/$defs/a22",
            },
            "more than 10,000 parts, counted with every",
        ),
        (functools.reduce(lambda inner, _: {"properties": {"a": inner}}, range(300), {}), "deeper than 100 levels"),
    ],
)
def test_schemas_that_would_take_minutes_are_refused_at_once(schema, why):
    with pytest.raises(GPTError, match=f"the JSON schema cannot be enforced: it .*{why}"):
        rule(json=schema)


def test_unknown_formats_are_annotations():
    made = rule(json={"type": "string", "format": "topic"})
    assert made.problem('"sport"') is None and made.note.endswith("not checked, as the format is not known: topic")
