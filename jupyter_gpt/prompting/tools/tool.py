"""A tool: a function with a docstring and type hints, and the JSON schema that tells a model how to call it.

The docstring says what the tool is for; each parameter is a property of the schema (pydantic makes it and validates the
arguments, turning "3" into 3 for an int). The model gets what the function returns as text. A function that changes
anything (a file, a mail, a database) says so with `writes`: a person must approve its calls.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NotRequired, get_type_hints

from jupyter_gpt.errors import GPTError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")  # what servers accept as the name of a tool
SECONDS = 30.0  # that a call may take
LARGEST = 2000  # characters of a result that the model is told


@dataclass(frozen=True)
class Tool:
    """A function and its description for a model.

    schema: JSON schema of its arguments, an object.  check: arguments (a mapping) to keywords, raising ValueError in
    one line.  writes: whether it changes anything outside.  seconds, largest: the time a call may take, and the
    characters of its result that are kept.  direct: a tool of ours that prompts the model itself, below its node in the
    trace and within the budget instead of a time limit.
    """

    name: str
    description: str
    schema: dict
    function: Callable
    check: Callable[[Mapping], dict]
    writes: bool = False
    seconds: float = SECONDS
    largest: int = LARGEST
    direct: bool = False

    def as_dict(self) -> dict:
        """In OpenAI's format, which chat templates take too."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.schema},
        }

    def signature(self) -> str:
        """`weather(city: string, days: integer = …)`: for a prompt that lists tools in words."""
        needed = self.schema.get("required", [])
        shown = [
            f"{name}: {kind_of(prop)}" + ("" if name in needed else " = …")
            for name, prop in self.schema.get("properties", {}).items()
        ]
        return f"{self.name}({', '.join(shown)})"

    def arguments(self, given: object) -> dict:
        """Keywords for the function from what a model wrote: a mapping, its JSON, or for a tool with one argument that
        argument alone. Raises ValueError that says what was wrong."""
        names = list(self.schema.get("properties", {}))
        text = unfenced(given) if isinstance(given, str) else None
        value = given if text is None else read(text, bare=len(names) == 1)
        if isinstance(value, Mapping):
            return self.check(value)
        if len(names) != 1:
            raise ValueError(f"the arguments are a JSON object with {', '.join(names) or 'nothing in it'}")
        try:
            return self.check({names[0]: value})
        except ValueError:
            if text is None:
                raise
            return self.check({names[0]: text})  # 12 is a number, and a text if the tool expects one


def unfenced(text: str) -> str:
    """A text without white space and the fence of a code block around it."""
    return re.sub(r"\A```\w*\n(.*?)\n?```\Z", r"\1", text.strip(), flags=re.DOTALL)


def read(text: str, bare: bool) -> object:
    """The JSON in a text; if any text will do (`bare`), other text is returned as it is."""
    try:
        return json.loads(text, strict=False) if text else {}
    except ValueError as error:
        if bare and not text.startswith("{"):
            return text
        raise ValueError(f"the arguments are not JSON: {error}") from None


def kind_of(prop: Mapping) -> str:
    """The type of a property in a word or two."""
    if "enum" in prop:
        return "|".join(json.dumps(value) for value in prop["enum"])
    if "anyOf" in prop:
        return " or ".join(kind_of(each) for each in prop["anyOf"])
    return prop.get("type", "object" if "$ref" in prop else "any")


def tool(
    function: Callable | None = None,
    *,
    name: str | None = None,
    writes: bool | None = None,
    seconds: float | None = None,
) -> Callable | Tool:
    """A Tool of a function; also a decorator, `@tool` or `@tool(writes=True)`.

    The description is the docstring, the schema comes from the type hints (`Annotated[int, Field(ge=1,
    description="…")]` says more). A function may have an attribute `writes = True`. Raises GPTError for a function
    without docstring, type hint or name, and for one whose arguments have no names.
    """
    if function is None:
        return lambda found: tool(found, name=name, writes=writes, seconds=seconds)
    if isinstance(function, Tool):
        changes = {"name": name, "writes": writes, "seconds": seconds}
        return replace(function, **{key: value for key, value in changes.items() if value is not None})
    named = name or getattr(function, "__name__", None) or type(function).__name__
    if not callable(function):
        raise GPTError(f"expected a function as a tool, got {function!r:.60}")
    if not NAME.fullmatch(named):
        raise GPTError(f"{named!r:.60} is not a valid tool name: use a function with a plain name, or tool(f, name=…)")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise GPTError(f"{named} is an async function, which cannot be a tool: wrap it in a plain one")
    described = inspect.getdoc(function) if hasattr(function, "__name__") else inspect.getdoc(type(function))
    if not described:
        raise GPTError(f"{named} has no docstring: a tool needs one that tells the model what it does")
    writes = bool(getattr(function, "writes", False)) if writes is None else writes
    schema, check = typed_arguments(function, named)
    return Tool(named, described, schema, function, check, writes, seconds or SECONDS)


def typed_arguments(function: Callable, named: str) -> tuple[dict, Callable[[Mapping], dict]]:
    """The JSON schema of a function's arguments, and the function that validates them. Raises GPTError, one line."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError, with_config
    from pydantic.errors import PydanticSchemaGenerationError
    from typing_extensions import TypedDict

    try:
        parameters = inspect.signature(function).parameters.values()
        hinted = function if inspect.isroutine(function) else type(function).__call__
        hints = get_type_hints(hinted, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise GPTError(f"{named} cannot be a tool, its signature cannot be read: {error}") from error
    fields = {}
    for one in parameters:
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            raise GPTError(f"{named} cannot be a tool: its argument {one} has no name to call it by")
        if one.name not in hints:
            raise GPTError(
                f"{named} cannot be a tool: its argument {one.name} has no type hint (as in {one.name}: str)"
            )
        hint = hints[one.name]
        fields[one.name] = hint if one.default is one.empty else NotRequired[hint]
    arguments = with_config(ConfigDict(extra="forbid"))(TypedDict(named, fields))
    try:
        adapter = TypeAdapter(arguments)
        schema = without_titles(adapter.json_schema())
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        kind = str(error).splitlines()[0]
        raise GPTError(f"{named} cannot be a tool, its type hints have no JSON schema: {kind}") from error

    def check(given: Mapping) -> dict:
        try:
            return adapter.validate_python(dict(given))
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False)
            wrong = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in found[:5]]
            raise ValueError("; ".join(wrong)) from None

    return schema, check


def without_titles(schema: object) -> object:
    """A schema without the titles that pydantic adds: tokens without information for a model."""
    if isinstance(schema, dict):
        properties = isinstance(schema.get("properties"), dict)
        kept = {k: v for k, v in schema.items() if k != "title" or not isinstance(v, str)}
        return {
            k: {name: without_titles(p) for name, p in v.items()}
            if k == "properties" and properties
            else without_titles(v)
            for k, v in kept.items()
        }
    return [without_titles(each) for each in schema] if isinstance(schema, list) else schema


def as_text(result: object) -> str:
    """What a function returned as text for a model: JSON where possible."""
    if isinstance(result, str):
        return result
    if result is None:
        return "done"
    if isinstance(result, dict | list | tuple | bool):
        try:
            return json.dumps(result, ensure_ascii=False)
        except (TypeError, ValueError):
            return str(result)
    return str(result)


def cut(text: str, most: int) -> str:
    """At most `most` characters, and how many more there were."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def to_json(arguments: object) -> str:
    """Arguments as indented JSON; pydantic models as their fields, anything else JSON lacks as text."""

    def plain(value: object) -> object:
        return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)

    return json.dumps(arguments, ensure_ascii=False, indent=1, default=plain)
