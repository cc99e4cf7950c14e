"""A model's call put into effect, once: looked up, checked, approved, run, and written down in the trace.

Nothing that can go wrong here ends the technique: an unknown tool, arguments that do not fit, a denial and an
error are told to the model as the result, and it may try otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.prompting.ask import Ask, Enough
from jupyter_gpt.prompting.tools.approval import Approval, spelled
from jupyter_gpt.prompting.tools.call import Result, call
from jupyter_gpt.prompting.tools.tool import Tool, cut
from jupyter_gpt.prompting.trace import Node

STEPS = 12  # turns of one ReAct, where nothing else is said


@dataclass(frozen=True)
class Acting:
    """What a model may act with.

    tools: those it is told of.  approval: whose say a call needs.  steps: how often it may act.
    native: whether the model's template or server has tool calls of its own; otherwise they are written in
    the text.  constrained: whether what it writes can be held to a grammar.
    special: the model's special tokens, which a result cannot spell.
    """

    tools: tuple[Tool, ...]
    approval: Approval = field(default_factory=Approval)
    steps: int = STEPS
    native: bool = False
    constrained: bool = False
    special: tuple[str, ...] = ()

    def __post_init__(self):
        """Raises GPTError for two tools of one name, an allowed one that is none, and no steps."""
        names = [tool.name for tool in self.tools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise GPTError(f"there are two tools called {twice}: tool(function, name=…) gives one another name")
        if self.steps < 1:
            raise GPTError(f"--steps is 1 or more, not {self.steps}")
        unknown = sorted(self.approval.allow - set(names))
        if unknown:
            raise GPTError(f"--allow {unknown[0]} is no tool given here{nearest(unknown[0], names)}")


def act(ask: Ask, acting: Acting, name: str, given: object) -> Node:
    """The node of one call. Raises Enough when a person interrupted it."""
    tool = next((tool for tool in acting.tools if tool.name == name), None)
    if tool is None:
        names = [tool.name for tool in acting.tools]
        said = f"Error: there is no tool {name!r:.60}{nearest(name, names)}. The tools are: {', '.join(names)}."
        return done(ask, name, given, Result(said, ok=False))
    try:
        arguments = tool.arguments(given)
    except ValueError as wrong:
        return done(ask, name, given, Result(f"Error: {wrong}. It is called as {tool.signature()}", ok=False))
    try:
        decision = ask.user(acting.approval.decide, tool, arguments)
        if not decision.approved:
            return done(ask, name, arguments, Result(f"Error: this call was {decision.how}", ok=False), decision.how)
        if tool.direct:
            return directly(ask, tool, decision.arguments)
        return done(ask, name, decision.arguments, ask.user(call, tool, decision.arguments), decision.how)
    except KeyboardInterrupt:
        done(ask, name, arguments, Result("stopped by hand", ok=False))
        raise Enough("stopped by hand") from None


def directly(ask: Ask, tool: Tool, arguments: dict) -> Node:
    """A tool of ours that asks the model, all of it beneath its node. A ValueError is told to the model."""
    with ask.inside(Node("tool", tool.name, prompt=written(tool.name, arguments))) as node:
        try:
            node.text, ok = cut(tool.function(**arguments), tool.largest), True
        except ValueError as wrong:
            node.text, ok = f"Error: {wrong}", False
        node.result = {"tool": tool.name, "arguments": plain(arguments), "ok": ok}
    return node


def done(ask: Ask, name: str, arguments: object, result: Result, how: str = "") -> Node:
    """Writes the call down."""
    notes = [how, "" if result.ok else "failed", f"printed: {result.printed}" if result.printed else ""]
    node = Node(
        "tool",
        name,
        prompt=written(name, arguments),
        text=result.text,
        seconds=result.seconds,
        note="; ".join(filter(None, notes)),
        result={
            "tool": name,
            "arguments": plain(arguments),
            "ok": result.ok,
            **({"error": result.error} if result.error else {}),
        },
    )
    return ask.add(node)


def written(name: str, arguments: object) -> str:
    """`weather {"city": "Ulm"}`: a call on one line, the same for the same call."""
    return f"{name} {arguments if isinstance(arguments, str) else ' '.join(spelled(arguments).split())}"


def plain(arguments: object) -> object:
    """Arguments as JSON has them."""
    import json

    return json.loads(spelled(arguments))


def listed(tools: Sequence[Tool]) -> str:
    """The tools in words, for a prompt."""
    return "\n".join(f"{tool.signature()}: {' '.join(tool.description.split())}" for tool in tools)


def as_schemas(tools: Sequence[Tool]) -> list[Mapping]:
    """The tools as templates and servers take them."""
    return [tool.as_dict() for tool in tools]
