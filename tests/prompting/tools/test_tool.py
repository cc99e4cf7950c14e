"""Schemas from hints and docstrings, and what becomes of the arguments a model writes."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.tools.tool import as_text, cut, tool


class Place(BaseModel):
    city: str
    zip: int | None = None


def weather(
    place: Place, days: Annotated[int, Field(ge=1, le=9, description="how many")] = 1, unit: Literal["C", "F"] = "C"
) -> str:
    """Tells the weather."""
    return f"{place.city} {days} {unit}"


def test_docstring_and_hints_become_what_servers_take():
    found = tool(weather).as_dict()
    assert found["type"] == "function"
    told = found["function"]
    assert (told["name"], told["description"]) == ("weather", "Tells the weather.")
    schema = told["parameters"]
    assert schema["type"] == "object"
    assert schema["required"] == ["place"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["days"] == {"type": "integer", "minimum": 1, "maximum": 9, "description": "how many"}
    assert schema["properties"]["unit"] == {"type": "string", "enum": ["C", "F"]}
    assert schema["$defs"]["Place"]["required"] == ["city"]
    assert "title" not in str(schema)
    assert tool(weather).signature() == 'weather(place: object, days: integer = …, unit: "C"|"F" = …)'


def test_a_property_may_be_called_title():
    def book(title: str, json: str, copy: int):
        """Keeps a book."""

    schema = tool(book).schema
    assert list(schema["properties"]) == ["title", "json", "copy"]
    assert tool(book).arguments({"title": "t", "json": "j", "copy": 2}) == {"title": "t", "json": "j", "copy": 2}


def test_arguments_are_checked_and_turned_into_what_the_hints_say():
    kept = tool(weather)
    done = kept.arguments('{"place": {"city": "Ulm", "zip": "89073"}, "days": "3"}')
    assert done == {"place": Place(city="Ulm", zip=89073), "days": 3}
    assert kept.function(**done) == "Ulm 3 C"
    with pytest.raises(ValueError, match=r"days: .*less than or equal to 9"):
        kept.arguments({"place": {"city": "Ulm"}, "days": 10})
    with pytest.raises(ValueError, match=r"place: Field required; sky: Extra inputs"):
        kept.arguments({"sky": 1})
    with pytest.raises(ValueError, match="not JSON"):
        kept.arguments('{"place": ')
    with pytest.raises(ValueError, match="JSON object with place, days, unit"):
        kept.arguments("[1, 2]")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("12 * 3", "12 * 3"),
        ('"12 * 3"', "12 * 3"),
        ('{"text": "12"}', "12"),
        ("12", "12"),
        ("```\n1+1\n```", "1+1"),
        ('  {"text": "a\nb"} ', "a\nb"),
        ("[1, 2]", "[1, 2]"),
    ],
)
def test_a_tool_of_one_argument_takes_it_bare(written, meant):
    def echo(text: str):
        """Says it."""

    assert tool(echo).arguments(written) == {"text": meant}


def test_a_list_for_the_one_argument():
    def add(numbers: list[float]):
        """Adds."""

    assert tool(add).arguments("[1, 2]") == {"numbers": [1.0, 2.0]}
    assert tool(add).arguments([3]) == {"numbers": [3.0]}


def test_no_arguments_at_all():
    def now() -> str:
        """The time."""

    assert tool(now).arguments("") == tool(now).arguments({}) == {}
    assert tool(now).signature() == "now()"


def test_methods_callables_and_decorators():
    class Shop:
        def price(self, what: str) -> int:
            """What a thing costs."""
            return len(what)

    class Ring:
        """Rings a bell."""

        def __call__(self, times: int):
            return "ding " * times

    price = tool(Shop().price)
    assert price.function(**price.arguments('{"what": "tea"}')) == 3
    ring = tool(Ring(), name="ring")
    assert (ring.name, ring.description) == ("ring", "Rings a bell.")
    assert ring.function(**ring.arguments("2")) == "ding ding "

    @tool(writes=True, seconds=1)
    def send(to: str):
        """Sends a mail."""

    assert (send.writes, send.seconds, send.name) == (True, 1, "send")
    assert not tool(send, writes=False).writes
    assert not tool(weather).writes

    def save(text: str):
        """Saves."""

    save.writes = True
    assert tool(save).writes


def test_what_cannot_be_a_tool_says_why():
    def silent(x: int): ...

    def unhinted(x):
        """Says."""

    def many(*x: int):
        """Says."""

    def strange(x: object()):
        """Says."""

    async def later(x: int):
        """Says."""

    def shapeless(x: pytest.MonkeyPatch):
        """Says."""

    for function, why in (
        (silent, "no docstring"),
        (unhinted, "x has no type hint"),
        (many, r"\*x: int has no name"),
        (strange, "cannot be"),
        (later, "async"),
        (shapeless, "no JSON schema"),
        (3, "expected a function as a tool, got 3"),
        (lambda x: x, "not a valid tool name"),
    ):
        with pytest.raises(GPTError, match=why):
            tool(function)


def test_results_as_text():
    assert [as_text(v) for v in ("é", None, {"a": "é"}, [1, None], True, 2.5)] == [
        "é",
        "done",
        '{"a": "é"}',
        "[1, null]",
        "true",
        "2.5",
    ]
    assert as_text({1: object}).startswith("{1: <class")
    assert cut("x" * 2500, 2000) == "x" * 2000 + " … (500 more characters)"
    assert cut("abc", 3) == "abc"
