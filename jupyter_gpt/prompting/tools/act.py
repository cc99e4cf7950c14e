"""One tool call of a model: looked up, checked, approved, run, and recorded in the trace; and the tools a user named.

Nothing that goes wrong here ends the technique: an unknown tool, arguments that do not fit, a denial and an error are
given to the model as the result, and it may try otherwise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from jupyter_gpt.data.render import special_tokens
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.prompting.ask import INTERRUPTED, Ask, Stopped
from jupyter_gpt.prompting.tools import mcp_server
from jupyter_gpt.prompting.tools.approval import STEPS, Approval, Person, Toolset, by_function, by_input
from jupyter_gpt.prompting.tools.call import Result, call
from jupyter_gpt.prompting.tools.mcp_server import PREFIX
from jupyter_gpt.prompting.tools.tool import Tool, cut, to_json, tool
from jupyter_gpt.prompting.trace import Node

BUILT_IN = ("calculator", "python", "search")
HITS = 3
LONGEST = 600  # characters of a passage


def act(ask: Ask, toolset: Toolset, name: str, given: object) -> Node:
    """Run one call; its node in the trace. Raises Stopped if a person interrupted it."""
    names = [each.name for each in toolset.tools]
    if name not in names:
        error = f"Error: there is no tool {name!r:.60}{nearest(name, names)}. The tools are: {', '.join(names)}."
        return record(ask, name, given, Result(error, ok=False))
    chosen = toolset.tools[names.index(name)]
    try:
        arguments = chosen.arguments(given)
    except ValueError as wrong:
        return record(ask, name, given, Result(f"Error: {wrong}. It is called as {chosen.signature()}", ok=False))
    began = time.monotonic()
    try:
        decision = ask.user(toolset.approval.decide, chosen, arguments)
        ask.began += time.monotonic() - began  # the time that a person thinks is not the technique's
        if not decision.approved:
            return record(ask, name, arguments, Result(f"Error: this call was {decision.how}", ok=False), decision.how)
        if chosen.direct:
            return act_directly(ask, chosen, decision.arguments)
        return record(ask, name, decision.arguments, ask.user(call, chosen, decision.arguments), decision.how)
    except KeyboardInterrupt:
        record(ask, name, arguments, Result(INTERRUPTED, ok=False))
        raise Stopped(INTERRUPTED) from None


def act_directly(ask: Ask, chosen: Tool, arguments: dict) -> Node:
    """Run a tool of ours that prompts the model, all of it below its node. A ValueError is told to the model."""
    with ask.inside(Node("tool", chosen.name, prompt=one_line(chosen.name, arguments))) as node:
        try:
            node.text, ok = cut(chosen.function(**arguments), chosen.largest), True
        except ValueError as wrong:
            node.text, ok = f"Error: {wrong}", False
        node.result = {"tool": chosen.name, "arguments": json.loads(to_json(arguments)), "ok": ok}
    return node


def record(ask: Ask, name: str, arguments: object, result: Result, how: str = "") -> Node:
    """Add the call to the trace."""
    notes = [how, "" if result.ok else "failed", f"printed: {result.printed}" if result.printed else ""]
    data = {"tool": name, "arguments": json.loads(to_json(arguments)), "ok": result.ok}
    return ask.add(
        Node(
            "tool",
            name,
            prompt=one_line(name, arguments),
            text=result.text,
            seconds=result.seconds,
            note="; ".join(filter(None, notes)),
            result=data | ({"error": result.error} if result.error else {}),
        )
    )


def one_line(name: str, arguments: object) -> str:
    """`weather {"city": "Ulm"}`: the same for the same call."""
    return f"{name} {arguments if isinstance(arguments, str) else ' '.join(to_json(arguments).split())}"


def listed(tools: Sequence[Tool]) -> str:
    """The tools in words, for a prompt."""
    return "\n".join(f"{each.signature()}: {' '.join(each.description.split())}" for each in tools)


def toolset_for(
    model,
    tools: str | Callable | Iterable | Tool,
    indexes: Mapping,
    approve: bool | Callable = False,
    allow: str | Iterable[str] = (),
    steps: int | None = None,
    person: Person | None = None,
) -> Toolset:
    """The tools for `model`, and whose approval they need.

    tools: names (`"calculator,python,search"`; `search:NAME` chooses the index), `mcp:COMMAND` or `mcp:URL`, and
    functions with a docstring and type hints.  approve: True shows every call to `person` (default: by `input()`), a
    function `f(name, arguments)` decides instead.  allow: tools that may run without approval where nobody can be
    asked.

    Raises GPTError for an unknown tool, and for a function that cannot be one.
    """
    endpoint = model.kind == "endpoint"
    person = by_function(approve) if callable(approve) else person or by_input
    native = bool(model.has_chat) if endpoint else has_tool_calls(model.tokenizer)  # a server may have, and is tried
    return Toolset(
        tuple(one for each in flatten(tools) for one in tools_of(each, indexes)),
        Approval(bool(approve), frozenset(split(allow) if isinstance(allow, str) else allow), person),
        steps or STEPS,
        native,
        constrained=not endpoint and not native,
        special=() if endpoint else special_tokens(model.tokenizer),
    )


def has_tool_calls(tokenizer) -> bool:
    """Whether a chat template has tool calls of its own."""
    from jupyter_gpt.inference.tool_calls import form_of

    return form_of(tokenizer) is not None


def flatten(tools: object) -> list:
    """Names and functions, out of nested lists and names separated by commas."""
    if isinstance(tools, str):
        return [tools] if tools.startswith(PREFIX) else split(tools)  # a command of a server may have commas
    if callable(tools) or isinstance(tools, Tool) or not isinstance(tools, Iterable):
        return [tools]
    return [each for item in tools for each in flatten(item)]


def split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def tools_of(given: object, indexes: Mapping) -> list[Tool]:
    """The tools that a name or a function stands for: those of a server, or one."""
    return mcp_server.tools_of(given) if str(given).startswith(PREFIX) else [tool_of(given, indexes)]


def tool_of(given: object, indexes: Mapping) -> Tool:
    """A tool by its name, or of a function."""
    if not isinstance(given, str):
        return given if isinstance(given, Tool) else tool(given)
    name, _, index = given.partition(":")
    if name == "calculator":
        from jupyter_gpt.prompting.tools.calculator import calculator

        return calculator()
    if name == "python":
        from jupyter_gpt.prompting.tools.python import python

        return python()
    if name == "search":
        return search(index_of(index, indexes))
    raise GPTError(f"there is no tool {given}{nearest(given, BUILT_IN)}; a function of this notebook is given as $name")


def index_of(name: str, indexes: Mapping):
    """The index to search: the named one, or the only one."""
    if name:
        return indexes[name]
    if not len(indexes):
        raise GPTError("the tool search needs an index: create one with %gpt index NAME SOURCE")
    if len(indexes) > 1:
        names = ", ".join(f"search:{each}" for each in indexes)
        raise GPTError(f"there are several indexes: choose one of {names}")
    return indexes[next(iter(indexes))]


def search(index) -> Tool:
    """A tool over anything with `search(query, k=)` whose hits have `.text`, `.source` and `.page`."""

    def look_up(query: str) -> str:
        """Searches the documents and answers the passages that fit best, each with its source."""
        hits = index.search(query, k=HITS)
        return "\n".join(passage(n, hit) for n, hit in enumerate(hits, start=1)) or "nothing was found"

    return tool(look_up, name="search")


def passage(number: int, hit) -> str:
    """`[1] manual.pdf, page 3: text`."""
    page = getattr(hit, "page", None)
    where = f"{hit.source}, page {page}" if page is not None else str(hit.source)
    return f"[{number}] {where}: {cut(' '.join(hit.text.split()), LONGEST)}"
