"""The form that shows a tool's call before it runs: Allow, edit, Deny; the running cell waits for the click.

The protocol, all of it:

synced state         {"call", "tool", "description", "why", "writes", "arguments", "problem", "decided"}. `call`
                     counts the calls of this cell, `why` is what the model said before it, `arguments` is JSON to be
                     edited as text, `problem` what was wrong with the last edit; `decided` is null while a decision is
                     missing, else what it was.
front end → kernel   {"type": "ready"} when it is drawn, and {"type": "approve" | "deny", "call": n} or
                     {"type": "edit", "call": n, "arguments": text}. A decision on another call than the one shown
                     is an old click, and is dropped.

Where the kernel hears no click while a cell runs (ipykernel 6, VS Code), "ready" does not come, and the question is
asked with `input()` instead.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

from jupyter_gpt.notebook.views import place
from jupyter_gpt.notebook.views.place import Place
from jupyter_gpt.notebook.views.widget import Widget
from jupyter_gpt.prompting.tools.approval import Decision, by_input, edited
from jupyter_gpt.prompting.tools.tool import Tool, to_json
from jupyter_gpt.prompting.trace import Node
from jupyter_gpt.report.parts import Paragraph
from jupyter_gpt.report.report import Report

PATIENCE = 6.0  # seconds in which a form that can be clicked has said so
SLOWEST = 60.0  # and where it surely can be
HOW = {"approve": "approved by hand", "edit": "edited by hand", "deny": "denied by hand"}


class ApprovalForm(Widget):
    """Shows one call after another; `decide` waits for a person.

    Raises GPTError when the package was installed without its built front end.
    """

    def __init__(self) -> None:
        self._heard, self._decided = threading.Event(), threading.Event()
        self._found: Decision | None = None
        self._call = 0
        super().__init__("approval", {})

    def put(self, tool: Tool, arguments: object, problem: str, why: str = "") -> None:
        """Show a call, and `why` the model makes it."""
        with self._lock:  # a second click on the call before must not decide on this one
            self._decided.clear()
            self._found, self._given = None, arguments
            self._call += 1
            self.state = {
                "call": self._call,
                "tool": tool.name,
                "description": tool.description,
                "why": why,
                "writes": tool.writes,
                "arguments": to_json(arguments),
                "problem": problem,
                "decided": None,
            }

    def decision(self) -> Decision | None:
        """What was decided on the call shown; None where no click can be heard. An interrupt ends the waiting."""
        until = time.monotonic() + patience()
        while not self._decided.wait(0.1):
            if not self._heard.is_set() and time.monotonic() > until:
                return None
        return self._found

    def hear(self, content: dict) -> None:
        self._heard.set()
        what = content.get("type")
        if what not in HOW or content.get("call") != self._call or self._decided.is_set():
            return
        arguments: Any = edited(content.get("arguments", "")) if what == "edit" else self._given
        self._found = Decision(what != "deny", arguments, HOW[what])
        self.state = {**self.state, "decided": HOW[what]}
        self._decided.set()


def patience() -> float:
    """Seconds to wait for the form. JupyterLab and Notebook draw it however busy the machine is, and a kernel that has
    subshells hears its clicks.
    """
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return SLOWEST if getattr(kernel, "_supports_kernel_subshells", False) and place.draws_over() else PATIENCE


class Asking:
    """A person at the notebook, as `Approval.person`: the form where one is live, else `input()`; at the end the form
    is taken away. `trace()` is the root of the technique's trace so far.
    """

    def __init__(self, trace: Callable[[], Node | None] = lambda: None):
        self.trace = trace
        self.place = Place()
        self.clicks = self.place.live

    def __call__(self, tool: Tool, arguments: dict, problem: str = "") -> Decision:
        if self.clicks:
            form = self.place.widget or ApprovalForm()
            form.put(tool, arguments, problem, reason(self.trace()))
            if self.place.widget is None:
                self.place.watch(form, lambda: asked(form.state))
            else:
                self.place.renew(at_once=True)
            found = form.decision()
            if found is not None:
                return found
            self.clicks = False
            self.place.clear()
        return by_input(tool, arguments, problem)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_) -> None:
        self.place.clear()


def reason(root: Node | None) -> str:
    """What the model said before its call: its thought, without the call itself."""
    said = [node.text for node in root.walk() if node.calls] if root else []
    thought = re.split(r"^Action:|<tool_call>", said[-1], maxsplit=1, flags=re.MULTILINE)[0] if said else ""
    return thought.strip().removeprefix("Thought:").strip()


def asked(call: dict) -> Report:
    """What the form asks, for the notebook that is saved while nobody has answered."""
    question = f"Allow {call['tool']} to run?{' It makes changes.' * call['writes']} Nobody has answered yet."
    why = [Paragraph(f"The model's reason: {call['why']}")] if call["why"] else []
    return Report(question, [*why, Paragraph(call["arguments"], "code")])
