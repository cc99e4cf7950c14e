"""The trace: the tree of everything that a technique asked, and what came of it.

A node is one thing that happened: a call of the model, one of its samples, a thought, a score, a tool call. Its
counts are its own; `totals` adds up those beneath it. A trace is data: `as_dict` gives plain JSON, `from_dict` the
tree again.
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
    """One thing that happened, and beneath it what it led to, in order.

    kind: what it is, in one word: "call" (the model was asked), "sample" (one of several answers to one call),
      "thought", "score", "tool", "vote", "task", …; label: the same for a reader, a few words.
    prompt: exactly what was sent, special tokens included; text: what came back, or what was found.
    answer: the answer extracted from `text`; None where none was looked for or found.
    score: what judged it says, higher is better; votes: how many samples agree with it.
    result: what a tool gave, any JSON; pruned: it was left behind for something better; note: what went wrong.
    tokens_in, tokens_out: its own, not its children's; seconds: how long its call took (several prompts asked
      together share that time); cost: dollars, None when unpriced; calls: how many requests it is itself, 0 or 1.
    completion: for a call or a sample, what the model answered, with everything else there is to know.
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
        """Whether its text was broken off: at --max-tokens, at the end of the context, or by hand."""
        return self.completion is not None and self.completion.finish_reason == "length"

    def add(self, child: Node) -> Node:
        """Put a node beneath this one, and give it back."""
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
        """Plain values as JSON has them; what says nothing is left out."""
        said = {name: getattr(self, name) for name in PLAIN}
        found = {name: value for name, value in said.items() if value not in ("", None, 0, False) or name == "kind"}
        for name in ("score", "votes", "result"):  # here 0 and False say something
            if said[name] is not None:
                found[name] = said[name]
        return found | ({"children": [child.as_dict() for child in self.children]} if self.children else {})

    @classmethod
    def from_dict(cls, data: dict) -> Node:
        """The tree that `as_dict` gave, without its completions."""
        children = [cls.from_dict(child) for child in data.get("children", [])]
        return cls(**{name: data[name] for name in PLAIN if name in data}, children=children)


PLAIN = tuple(name for name in Node.__dataclass_fields__ if name not in ("children", "completion"))


def called(label: str, completion: Completion, kind: str = "call") -> Node:
    """The node of one call. Several samples are its children: what each sampled is counted there."""
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
