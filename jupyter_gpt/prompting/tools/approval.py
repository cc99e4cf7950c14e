"""A person's say before a tool acts: Approve, Edit, Deny.

With `--approve` every call is shown first; a tool that writes is always shown. Where nobody can be asked (a
notebook run by a machine) such a call is denied, unless its tool is on the list of `--allow`. A person is a
function `(tool, arguments, problem) -> Decision`: the form in the cell, `by_input` where a click cannot reach
a running cell, or the user's own.
"""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.tools.tool import Tool

NOBODY = "denied: nobody is there to approve it (--allow {name} lets it act)"
ASKED = """{name} wants to act{writes}:
{arguments}
{problem}[a]pprove, [e]dit, [d]eny: """


@dataclass(frozen=True)
class Decision:
    """What was decided on a call: whether it may act, with which arguments, and how that came about."""

    approved: bool
    arguments: dict
    how: str = ""  # empty where nobody had to be asked


Person = Callable[[Tool, dict, str], Decision]  # (tool, arguments, what was wrong with an edit)


class Nobody(Exception):
    """There is nobody to ask."""


@dataclass(frozen=True)
class Approval:
    """Which calls need a say, and whose. approve: all of them. person: None where there is nobody to ask."""

    approve: bool = False
    allow: frozenset[str] = frozenset()
    person: Person | None = None

    def decide(self, tool: Tool, arguments: dict) -> Decision:
        """Whether the call may act. An edited call is checked as the model's was, and asked for again when it
        does not fit.
        """
        if not (self.approve or tool.writes):
            return Decision(True, arguments)
        problem = ""
        while self.person is not None:
            try:
                found = self.person(tool, arguments, problem)
            except Nobody:
                break
            if not found.approved:
                return found
            try:
                return Decision(True, tool.arguments(found.arguments), found.how)
            except ValueError as wrong:
                arguments, problem = found.arguments, str(wrong)
        if tool.name in self.allow:
            return Decision(True, arguments, "on the allowed list")
        return Decision(False, arguments, NOBODY.format(name=tool.name))


def by_input(tool: Tool, arguments: dict, problem: str = "") -> Decision:
    """Asks with `input()`, in a notebook or a terminal. Raises Nobody where there is none to type."""
    if builtins.input.__module__ == "builtins" and not (sys.stdin and sys.stdin.isatty()):
        raise Nobody  # a plain input() of a script in no terminal would wait for ever, or read a file
    shown = ASKED.format(
        name=tool.name,
        writes=", and it writes" if tool.writes else "",
        arguments=spelled(arguments),
        problem=f"{problem}\n" if problem else "",
    )
    try:
        while True:
            said = input(shown).strip().lower()
            if said in ("a", "approve", "y", "yes"):
                return Decision(True, arguments, "approved by hand")
            if said in ("d", "deny", "n", "no"):
                return Decision(False, arguments, "denied by hand")
            if said in ("e", "edit"):
                return Decision(True, edited(input("the arguments as JSON: ")), "edited by hand")
    except (EOFError, OSError, NotImplementedError) as error:  # nbclient and pytest have no input
        raise Nobody from error


def edited(text: str):
    """What a person typed, as JSON where it is some; `Tool.arguments` reads the rest."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def spelled(arguments: object) -> str:
    """Arguments as a person reads and edits them: JSON, with what JSON does not have as text."""
    return json.dumps(arguments, ensure_ascii=False, indent=1, default=plainly)


def plainly(value: object) -> object:
    """What checking turned into an object (a pydantic model, a date), as JSON again."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


def by_function(function: Callable) -> Person:
    """A person played by the user's function `f(name, arguments)`: True, False, or a dict with other arguments."""

    def decide(tool: Tool, arguments: dict, problem: str = "") -> Decision:
        if problem:
            raise GPTError(f"the arguments that approve= gave for {tool.name} do not fit: {problem}")
        said = function(tool.name, arguments)
        if isinstance(said, dict):
            return Decision(True, said, "edited by the approving function")
        if not isinstance(said, bool):
            raise GPTError(f"approve= answers True, False or a dict with other arguments, not {said!r:.40}")
        how = "approved" if said else "denied"
        return Decision(said, arguments, f"{how} by the approving function")

    return decide
