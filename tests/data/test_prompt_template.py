"""Holes and turns: what is meant as one is, and everything else stays to the letter."""

import json
import math
from types import SimpleNamespace

import pytest

from jupyter_gpt.data.render import check_messages, fill, turns
from jupyter_gpt.errors import GPTError

NAMES = {
    "topic": "the moon",
    "n": 3,
    "rows": [{"name": "Ada"}, {"name": "Grace"}],
    "paper": SimpleNamespace(title="On X"),
    "hole": "{topic}",
    "print": print,
    "math": math,
    "In": ["x"],
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("about {topic}, {n} times", "about the moon, 3 times"),
        ("{rows[1]['name']} and {rows[-1][\"name\"]}, {paper.title}", "Grace and Grace, On X"),
        ("{hole}", "{topic}"),  # what fills a hole is not looked at again
        ("{{topic}} stays {topic}", "{topic} stays the moon"),
    ],
)
def test_holes_are_filled(text, filled):
    assert fill(text, NAMES) == (filled, [])


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"a": {"b": [1, {}], "topic": "{"}}),
        "a { brace } and } another {",
        "{}",
        "{0}",
        "{topic!r}",
        "{n:03d}",
        "{ topic }",
        "{topic",
        "topic}",
        "{1 + 1}",
        "{rows[0:1]}",
        "{paper.__class__}",
        "{rows[n]}",
        r"\frac{1}{2}",
        "{topic()}",
        "{{{}}}",
    ],
)
def test_any_other_brace_is_a_brace(text):
    assert fill(text, NAMES) == (text, [])


def test_names_that_are_no_data_stay_and_are_told():
    text = "{unknown} {print} {math} {In} {{unknown}} {math.pi}"
    assert fill(text, NAMES) == (text, ["{unknown}", "{print}", "{math}", "{In}", "{{unknown}}", "{math.pi}"])


@pytest.mark.parametrize("text", ["{rows[7]}", "{paper.year}", "{rows['x']}", "{n[0]}", "{topic.title.x}"])
def test_a_step_that_leads_nowhere_is_an_error(text):
    with pytest.raises(GPTError, match="cannot be filled"):
        fill(text, NAMES)


def test_turns():
    assert turns("What is it?") is None
    assert turns("First: user: x") is None
    assert turns("\nsystem: Be brief.\nuser:  Hi\nthere: you\n\nassistant: Yes?\nuser: Bye\n") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi\nthere: you"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Bye"},
    ]


@pytest.mark.parametrize(
    "bad",
    [[], "x", [{"role": "robot", "content": "x"}], [{"role": "user"}], [{"role": "user", "content": 3}]],
)
def test_messages_are_checked(bad):
    with pytest.raises(GPTError, match="chat"):
        check_messages(bad)
