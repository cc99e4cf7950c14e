"""Which tools a model may use (`Toolset`), and a person's approval before one runs: Approve, Edit, Deny.

With `--approve` every call is shown first; a tool that writes is always shown. Where nobody can be asked (a notebook
run by a machine) such a call is denied, unless its tool is on the list of `--allow`. A person is a function `(tool,
arguments, problem) -> Decision`: the form in the cell, `by_input` where a click cannot reach a running cell, or the
user's own.
"""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.prompting.tools.tool import Tool, to_json

STEPS = 12  # turns of one ReAct run by default
NOBODY = "denied: nobody is there to approve it (--allow {name} lets it act)"
QUESTION = """Allow {name} to run?{writes}
{arguments}
{problem}[a]llow, [e]dit, [d]eny: """


@dataclass(frozen=True)
class Decision:
    """Whether a call may run, with which arguments, and who decided (empty if no approval was needed)."""

    approved: bool
    arguments: dict
    how: str = ""


Person = Callable[[Tool, dict, str], Decision]  # (tool, arguments, what was wrong with an edit)


class Nobody(Exception):
    """There is nobody to ask."""


@dataclass(frozen=True)
class Approval:
    """Which calls need approval, and whose. approve: all of them. person: None where there is nobody to ask."""

    approve: bool = False
    allow: frozenset[str] = frozenset()
    person: Person | None = None

    def decide(self, tool: Tool, arguments: dict) -> Decision:
        """The decision on a call. Edited arguments are checked like the model's, and asked for again if they do not
        fit."""
        if not (self.approve or tool.writes):
            return Decision(True, arguments)
        problem = ""
        while self.person is not None:
            try:
                decision = self.person(tool, arguments, problem)
            except Nobody:
                break
            if not decision.approved:
                return decision
            try:
                return Decision(True, tool.arguments(decision.arguments), decision.how)
            except ValueError as wrong:
                arguments, problem = decision.arguments, str(wrong)
        if tool.name in self.allow:
            return Decision(True, arguments, "on the allowed list")
        return Decision(False, arguments, NOBODY.format(name=tool.name))


@dataclass(frozen=True)
class Toolset:
    """The tools of a model.

    steps: turns at most.  native: whether the model's chat template or server has tool calls; otherwise they are
    written in the text.  constrained: whether its output can be constrained by a grammar.  special: the model's special
    tokens, which a result may not spell.
    """

    tools: tuple[Tool, ...]
    approval: Approval = field(default_factory=Approval)
    steps: int = STEPS
    native: bool = False
    constrained: bool = False
    special: tuple[str, ...] = ()

    def __post_init__(self):
        """Raises GPTError for two tools of one name, and for an unknown one in `allow`."""
        names = [tool.name for tool in self.tools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise GPTError(f"there are two tools called {twice}: tool(function, name=…) gives one another name")
        unknown = sorted(self.approval.allow - set(names))
        if unknown:
            raise GPTError(f"--allow {unknown[0]} is not among --tools{nearest(unknown[0], names)}")


def by_input(tool: Tool, arguments: dict, problem: str = "") -> Decision:
    """Asks with `input()`, in a notebook or a terminal. Raises Nobody where there is neither."""
    if builtins.input.__module__ == "builtins" and not (sys.stdin and sys.stdin.isatty()):
        raise Nobody  # a plain input() of a script outside a terminal would wait for ever, or read a file
    question = QUESTION.format(
        name=tool.name,
        writes=" It makes changes." if tool.writes else "",
        arguments=to_json(arguments),
        problem=f"{problem}\n" if problem else "",
    )
    try:
        while True:
            reply = input(question).strip().lower()
            if reply in ("a", "allow", "approve", "y", "yes"):
                return Decision(True, arguments, "approved by hand")
            if reply in ("d", "deny", "n", "no"):
                return Decision(False, arguments, "denied by hand")
            if reply in ("e", "edit"):
                return Decision(True, edited(input("the arguments as JSON: ")), "edited by hand")
    except (EOFError, OSError, NotImplementedError) as error:  # nbclient and pytest have no input
        raise Nobody from error


def edited(text: str):
    """What a person typed: JSON if it is some, else the text, which `Tool.arguments` reads."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def by_function(function: Callable) -> Person:
    """The user's function `f(name, arguments)` as the person: True, False, or a dict with other arguments."""

    def decide(tool: Tool, arguments: dict, problem: str = "") -> Decision:
        if problem:
            raise GPTError(f"the arguments that approve= gave for {tool.name} do not fit: {problem}")
        reply = function(tool.name, arguments)
        if isinstance(reply, dict):
            return Decision(True, reply, "edited by the approving function")
        if not isinstance(reply, bool):
            raise GPTError(f"approve= answers True, False or a dict with other arguments, not {reply!r:.40}")
        return Decision(reply, arguments, f"{'approved' if reply else 'denied'} by the approving function")

    return decide
