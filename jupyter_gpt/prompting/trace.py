"""The trace: the tree of all calls that a technique made and what came of them, and its report.

A node is one event: a call of the model, one of its samples, a thought, a score, a tool call. Its counts are its own;
`totals` adds up those below it. A trace is data: `as_dict` gives plain JSON, `from_dict` the tree again. In a report
each node has its prompt, what came back, its score, votes, tokens and seconds; pruned branches are grey. Which nodes
there are depends on what was sampled, so the whole tree varies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.inference.completion_report import answer, data, ending, exact, settings
from jupyter_gpt.prompting.answers import clean
from jupyter_gpt.report.parts import (
    Bar,
    Folded,
    Inline,
    Paragraph,
    Part,
    Span,
    Table,
    Tree,
    Varies,
    bold,
    joined,
    quiet,
)
from jupyter_gpt.report.report import Report

OPEN = 14  # nodes from which on a tree is folded below its first level
ANSWER = 40  # characters of an answer that a line says
LINE = 90  # characters of what was said, in a line of the tree
HEAVY = 600_000  # characters from which on prompts are left to `completion.trace`
BLUE = "rgba(74,144,194,0.8)"
TAG, CUT = "rgba(0,114,178,0.18)", "rgba(216,58,58,0.2)"
TAGGED = re.compile(r"score |\d+ votes?$|pruned$")


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


# the trace as a report


def trace_report(completion) -> Report:
    """What `%%prompt` with techniques leaves behind, and `%gpt show last` shows again."""
    root = Node.from_dict(completion.trace)
    said = answer(completion)
    if completion.answer is not None and not is_whole(completion):
        said = [Paragraph(["answer: ", Span(Varies(completion.answer), "bold large")], "block")]
    notes = [Varies(note) for note in completion.notes]
    parts = [
        *said,
        *([Varies([Table((), rows, "rlr")])] if (rows := votes(root)) else []),
        Varies([tree(root, completion.text if completion.answer is None or is_whole(completion) else "")]),
        Paragraph(joined("\n", [*summary(completion, root), *notes]), "quiet"),
        Folded("exact first prompt", [exact(completion.prompt, completion)]),
    ]
    return Report("", parts, data("trace", completion) | {"technique": root.label}, completion.as_dict())


def is_whole(completion) -> bool:
    """Whether the text is itself the answer and the one that was read from it only its beginning, as an agent's is."""
    text = completion.text.strip()
    return len(completion.samples) == 1 and "\n" in text and clean(text) == completion.answer


def unsent_report(completion) -> Report:
    """A dry run: the prompts that can be known, and what the others wait for."""
    root = Node.from_dict(completion.trace)
    known = [node for node in root.walk() if node.calls]
    nothing = f"exact first prompt{'s' * (len(known) != 1)}; nothing was sent"
    lines = Paragraph("\n".join([technique(completion, root), nothing, *completion.notes]), "quiet")
    parts = [lines, *(exact(node.prompt, completion) for node in known)]
    return Report("", parts, data("prompt", completion) | {"technique": root.label}, completion.as_dict())


def technique(completion, root: Node) -> str:
    """Model, technique, form and settings."""
    return f"{completion.model} · {root.label} · {completion.form} · {settings(completion.sampling)}"


def summary(completion, root: Node) -> list[Inline]:
    """Model, technique and settings; what all of it took."""
    usage, price = completion.usage, []
    if completion.remote:
        price = [" · unpriced"] if usage.cost is None else [" · ", Varies(usage.cost, 6), " $"]
    took = [Varies(root.totals().calls), " calls · ", Varies(usage.prompt_tokens), " tokens in, "]
    took += [Varies(usage.completion_tokens), " out · ", Varies(usage.seconds, 1), " s", *price]
    return [technique(completion, root), [*took, " · ", Varies(ending(completion))]]


def votes(root: Node) -> list[tuple[Inline, ...]]:
    """A row for each answer of the last vote: answer, bar, votes; empty where there was none."""
    node = next((node for node in reversed(list(root.walk())) if node.kind == "vote" and node.result), None)
    found = node.result if node and isinstance(node.result, dict) else {}
    spread = sorted(found.items(), key=lambda pair: -pair[1])
    most = max((count for _, count in spread), default=1)
    return [(short(given, 60), Bar([(count / most, BLUE, "")], 200, 24), count) for given, count in spread]


def facts(node: Node, totals: Totals) -> list[str]:
    """What a line of the tree says about a node beside its name, in the order of interest."""
    said = []
    if node.answer is not None:
        said.append(f"→ {short(node.answer, ANSWER)}")
    if node.votes is not None and node.kind != "vote":
        said.append(f"{node.votes} vote{'s' * (node.votes != 1)}")
    if node.score is not None:
        said.append(f"score {node.score:g}")
    if node.pruned:
        said.append("pruned")
    if totals.tokens_in or totals.tokens_out:
        said.append(f"{totals.tokens_in:,} tokens in, {totals.tokens_out:,} out")
    if node.seconds is not None:
        said.append(f"{node.seconds:.1f} s")
    if node.cost is not None:
        said.append(f"{node.cost:.6f} $")
    return said


def tagged(fact: str) -> Span:
    """What decided the fate of a node stands out."""
    return Span(fact, tint=CUT if fact == "pruned" else TAG)


def short(text: str, most: int) -> str:
    """One line of a text, cut."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def tree(root: Node, above: str = "") -> Tree:
    """The nodes, each with its details behind a fold. A long text is shown once: not where it is the text `above` the
    tree or that of an earlier node, as that of the sample that won a vote.
    """
    count, budget, shown = sum(1 for _ in root.walk()), [HEAVY], {above}

    def part(node: Node, depth: int) -> Tree:
        head = [bold(node.label or node.kind)]
        for fact in facts(node, node.totals()):
            head += [quiet(" · "), tagged(fact)] if TAGGED.match(fact) else [quiet(f" · {fact}")]
        known = node.answer is not None and node.text.strip() == node.answer.strip() and len(node.answer) <= ANSWER
        text = node.text if not known and (len(node.text) <= LINE or node.text not in shown) else ""
        shown.add(text)
        cut = short(text, LINE) != text
        head += [Span(f"  {short(text, LINE)}", "quiet glance" if cut else "quiet")] if text else []
        head += [quiet(f"  [{node.note}]")] if node.note else []
        inside = detail(node, text if cut else "", budget)
        children = [part(child, depth + 1) for child in node.children]
        opened = depth == 0 or (count <= OPEN and bool(children))
        return Tree(head, inside, children, opened, node.pruned)

    return part(root, 0)


def detail(node: Node, text: str, budget: list[int]) -> Sequence[Part]:
    """What is behind the fold of a node: its text unless its line has it, a tool's result, the exact prompt."""
    parts: list[Part] = [Paragraph(text, "code")] if text else []
    if node.result is not None:
        result = node.result if isinstance(node.result, str) else json.dumps(node.result, ensure_ascii=False)
        parts.append(Paragraph(result, "code"))
    if node.prompt:
        budget[0] -= len(node.prompt)
        fits = budget[0] > 0
        shown = Paragraph(node.prompt, "code") if fits else Paragraph("too long here: see completion.trace", "quiet")
        parts.append(Folded(quiet("exact prompt"), [shown]))
    return parts
