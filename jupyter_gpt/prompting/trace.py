"""The trace: the tree of all calls that a technique made, and what came of them.

A node is one event: a call of the model, one of its samples, a thought, a score, a tool call. Its counts are its own;
`totals` adds up those below it. A trace is data: `as_dict` gives plain JSON, `from_dict` the tree again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from jupyter_gpt.inference.completion import Completion


class Totals(NamedTuple):
    """Of a node and all beneath it: calls, tokens in and out, and dollars (None when any call has no known price)."""

    calls: int
    tokens_in: int
    tokens_out: int
    cost: float | None


@dataclass(eq=False)
class Node:
    """One event, and below it what it led to, in order.

    kind: "call" (the model was prompted), "sample" (one of several answers to a call), "thought", "score", "tool",
      "vote", "task", …; label: the same in a few words for a reader.
    prompt: exactly what was sent, special tokens included; text: what came back.
    answer: the answer extracted from `text`, None if there is none.
    score: its rating, higher is better; votes: how many samples agree with it.
    result: what a tool returned, any JSON; pruned: it was discarded for something better; note: what went wrong.
    tokens_in, tokens_out: without its children's; seconds: the time of its call (prompts sent together share it); cost:
      dollars, None if unpriced; calls: 1 for a request, else 0.
    completion: of a call or a sample.
    """

    kind: str
    label: str = ""
    prompt: str = ""
    text: str = ""
    answer: str | None = None
    children: list[Node] = field(default_factory=list)
    score: float | None = None
    votes: int | None = None
    result: object = None
    pruned: bool = False
    note: str = ""
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float | None = None
    cost: float | None = None
    calls: int = 0
    completion: Completion | None = field(default=None, repr=False)

    @property
    def cut(self) -> bool:
        """Whether its text was cut off: at --max-tokens, at the end of the context, or by hand."""
        return self.completion is not None and self.completion.finish_reason == "length"

    def add(self, child: Node) -> Node:
        """Add a child; returns it."""
        self.children.append(child)
        return child

    def walk(self) -> Iterator[Node]:
        """This node and all beneath it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def totals(self) -> Totals:
        """The sum over this node and all beneath it."""
        nodes = list(self.walk())
        calls = [node for node in nodes if node.calls]
        priced = bool(calls) and all(node.cost is not None for node in calls)
        return Totals(
            sum(node.calls for node in nodes),
            sum(node.tokens_in for node in nodes),
            sum(node.tokens_out for node in nodes),
            sum(node.cost for node in calls) if priced else None,
        )

    def as_dict(self) -> dict:
        """Plain JSON values; empty fields are left out."""
        fields = {name: getattr(self, name) for name in PLAIN}
        meaningful = {"kind", *(name for name in ("score", "votes", "result") if fields[name] is not None)}  # 0 too
        given = {name: v for name, v in fields.items() if name in meaningful or v not in ("", None, 0, False)}
        return given | ({"children": [child.as_dict() for child in self.children]} if self.children else {})

    @classmethod
    def from_dict(cls, data: dict) -> Node:
        """The tree that `as_dict` gave, without its completions."""
        children = [cls.from_dict(child) for child in data.get("children", [])]
        return cls(**{name: data[name] for name in PLAIN if name in data}, children=children)


PLAIN = tuple(name for name in Node.__dataclass_fields__ if name not in ("children", "completion"))


def node_of_call(label: str, completion: Completion, kind: str = "call") -> Node:
    """The node of one call. Several samples are its children, each with its own token count."""
    usage = completion.usage
    node = Node(
        kind,
        label,
        completion.prompt,
        completion.text,
        tokens_in=usage.prompt_tokens,
        tokens_out=usage.completion_tokens,
        seconds=usage.seconds,
        cost=usage.cost,
        calls=1,
        model=completion.model,
        completion=completion,
        note="; ".join(completion.notes),
    )
    if len(completion.samples) > 1:
        node.text = ""
        node.children = [
            Node("sample", f"sample {n}", text=sample.text, tokens_out=len(sample.tokens), completion=sample)
            for n, sample in enumerate(completion.samples, start=1)
        ]
        node.tokens_out -= sum(child.tokens_out for child in node.children)
    return node
