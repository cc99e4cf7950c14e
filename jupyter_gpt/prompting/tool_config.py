"""What a model may act with, from what a user says: names of tools, functions, who approves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from jupyter_gpt.data.render import special_tokens
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.prompting.tools.act import STEPS, Acting
from jupyter_gpt.prompting.tools.approval import Approval, Person, by_function, by_input
from jupyter_gpt.prompting.tools.tool import Tool, tool

BUILT_IN = ("calculator", "python", "search")


def acting(
    model,
    tools: str | Callable | Iterable,
    indexes: Mapping,
    *,
    approve: bool | Callable = False,
    allow: str | Iterable[str] = (),
    steps: int | None = None,
    person: Person | None = None,
) -> Acting:
    """The tools for `model`, and whose say they need.

    tools: names (`"calculator,python,search"`; `search:NAME` says in which index) and functions with a docstring and
    type hints.  approve: True shows every call to `person` (default: by `input()`), a function `f(name, arguments)`
    decides in a person's place.  allow: tools that may act where nobody can be asked.

    Raises GPTError for an unknown tool, and for a function that cannot be one.
    """
    found = tuple(one(each, indexes) for each in flat(tools))
    who = by_function(approve) if callable(approve) else person or by_input
    allowed = frozenset(words(allow) if isinstance(allow, str) else allow)
    native = speaks_calls(model)
    special = () if model.kind == "endpoint" else special_tokens(model.tokenizer)
    return Acting(
        found,
        Approval(bool(approve), allowed, who),
        steps or STEPS,
        native,
        constrained=model.kind != "endpoint" and not native,
        special=special,
    )


def flat(tools: object) -> list:
    """Names and functions, out of lists in lists and names parted by commas."""
    if isinstance(tools, str):
        return words(tools)
    if callable(tools) or isinstance(tools, Tool) or not isinstance(tools, Iterable):
        return [tools]
    return [each for item in tools for each in flat(item)]


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def one(said: object, indexes: Mapping) -> Tool:
    """A tool by its name, or of a function."""
    if not isinstance(said, str):
        return said if isinstance(said, Tool) else tool(said)
    name, _, index = said.partition(":")
    if name == "calculator":
        from jupyter_gpt.prompting.tools.calculator import calculator

        return calculator()
    if name == "python":
        from jupyter_gpt.prompting.tools.python import python

        return python()
    if name == "search":
        from jupyter_gpt.prompting.tools.search import search

        return search(chosen(index, indexes))
    raise GPTError(f"there is no tool {said}{nearest(said, BUILT_IN)}; a function of this notebook is given as $name")


def chosen(name: str, indexes: Mapping):
    """The index to search: the one named, or the only one there is."""
    if name:
        return indexes[name]
    if not len(indexes):
        raise GPTError("search wants an index, and there is none yet: %gpt index NAME SOURCE makes one")
    if len(indexes) > 1:
        names = ", ".join(f"search:{each}" for each in indexes)
        raise GPTError(f"there are several indexes: say which, as {names}")
    return indexes[next(iter(indexes))]


def speaks_calls(model) -> bool:
    """Whether its chat template has tool calls of its own; a server may have, and is tried."""
    if model.kind == "endpoint":
        return bool(model.has_chat)
    from jupyter_gpt.inference.tool_calls import form_of

    return form_of(model.tokenizer) is not None
