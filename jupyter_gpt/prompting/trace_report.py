"""The trace of a technique as one report: the answer, the spread of the votes, and the tree of all that was asked.

Each node of the tree has its prompt, what came back, its score, votes, tokens and seconds; pruned branches are grey.
Which nodes there are depends on what was sampled, so the whole tree varies.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from jupyter_gpt.inference.completion_report import answer, data, ending, exact, settings
from jupyter_gpt.prompting.trace import Node, Totals
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
LINE = 90  # characters of what was said, in a line of the tree
HEAVY = 600_000  # characters from which on prompts are left to `completion.trace`
BLUE = "rgba(74,144,194,0.8)"


def trace_report(completion) -> Report:
    """What `%%prompt` with techniques leaves behind, and `%gpt show last` shows again."""
    root = Node.from_dict(completion.trace)
    said = answer(completion)
    if completion.answer is not None:
        said = [Paragraph(["answer: ", Span(Varies(completion.answer), "bold large")], "block")]
    notes = [Varies(note) for note in completion.notes]
    parts = [
        *said,
        *([Varies([Table((), rows, "rlr")])] if (rows := votes(root)) else []),
        Varies([tree(root)]),
        Paragraph(joined("\n", [*summary(completion, root), *notes]), "quiet"),
        Folded("exact first prompt", [exact(completion.prompt, completion)]),
    ]
    return Report("", parts, data("trace", completion) | {"technique": root.label}, completion.as_dict())


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
        said.append(f"→ {short(node.answer, 40)}")
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


def short(text: str, most: int) -> str:
    """One line of a text, cut."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def tree(root: Node) -> Tree:
    """The nodes, each with what is behind its fold."""
    count, budget = sum(1 for _ in root.walk()), [HEAVY]

    def part(node: Node, depth: int) -> Tree:
        head = [bold(node.label or node.kind), *(quiet(f" · {fact}") for fact in facts(node, node.totals()))]
        head += [quiet(f"  {short(node.text, LINE)}")] if node.text else []
        head += [quiet(f"  [{node.note}]")] if node.note else []
        inside = detail(node, budget)
        children = [part(child, depth + 1) for child in node.children]
        opened = depth == 0 or (count <= OPEN and bool(children))
        return Tree(head, inside, children, opened, node.pruned)

    return part(root, 0)


def detail(node: Node, budget: list[int]) -> Sequence[Part]:
    """What is behind the fold of a node: what came back, a tool's result, the exact prompt."""
    parts: list[Part] = [Paragraph(node.text, "code")] if node.text else []
    if node.result is not None:
        result = node.result if isinstance(node.result, str) else json.dumps(node.result, ensure_ascii=False)
        parts.append(Paragraph(result, "code"))
    if node.prompt:
        budget[0] -= len(node.prompt)
        fits = budget[0] > 0
        shown = Paragraph(node.prompt, "code") if fits else Paragraph("too long here: see completion.trace", "quiet")
        parts.append(Folded(quiet("exact prompt"), [shown]))
    return parts
