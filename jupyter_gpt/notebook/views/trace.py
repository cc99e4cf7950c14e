"""The trace of a technique as one static bundle: the answer, the spread of the votes, and the tree of all that was
asked.

The tree is nested `<details>`: it folds with no kernel and no trust. Each node has its prompt, what came back, its
score, votes, tokens and seconds; what was left behind is grey. Which nodes there are depends on what was sampled, so
the whole
tree stands between the marks of sampled text.
"""

from __future__ import annotations

import json

from jupyter_gpt.notebook.views.bundle import Bundle, about, escape, marked, plain, quoted
from jupyter_gpt.notebook.views.completion import (
    QUIET,
    answer_html,
    answer_text,
    code,
    data,
    ending,
    prose,
    settings,
    told,
)
from jupyter_gpt.notebook.views.table import CODE
from jupyter_gpt.prompting.trace import Node, Totals

OPEN = 14  # nodes from which on a tree is folded below its first level
LINE = 90  # characters of what was said, in a line of the tree
HEAVY = 600_000  # characters of HTML from which on prompts are left to `completion.trace`
BAR = 24  # columns of the longest bar of the votes
INDENT = "margin:2px 0 2px 14px"


def trace_bundle(completion) -> Bundle:
    """What `%%prompt` with techniques leaves behind, and `%gpt show last` shows again."""
    root = Node.from_dict(completion.trace)
    first, second = summary(completion, root)
    notes = [quoted(note) for note in completion.notes]
    text = "\n\n".join(
        filter(
            None,
            [
                said_text(completion),
                votes_text(root),
                quoted(tree_text(root)),
                "\n".join([first, second, *notes]),
            ],
        )
    )
    lines = [
        escape(first),
        escape(second),
        *(marked(plain(note)) for note in completion.notes),
    ]  # their marks stay marks
    html = (
        f"{said_html(completion)}{votes_html(root)}{marked(tree_html(root))}"
        f'<p style="{QUIET}">{"<br>".join(lines)}</p>'
        f"<details><summary>the first prompt, exactly</summary>{code(completion.prompt, completion)}</details>"
    )
    return Bundle(text, html, data("trace", completion) | {"technique": root.label}, completion.as_dict())


def unsent_bundle(completion) -> Bundle:
    """A dry run: the prompts that can be known, and what the others wait for."""
    root = Node.from_dict(completion.trace)
    known = [node for node in root.walk() if node.calls]
    lines = [
        f"{completion.model} · {root.label} · {completion.form} · {settings(completion.sampling)}",
        f"the first prompt{'s' * (len(known) != 1)}, exactly; nothing was sent",
        *completion.notes,
    ]
    text = "\n".join(lines) + "\n\n" + "\n\n".join(told(node.prompt, completion) for node in known)
    html = f'<p style="{QUIET}">{"<br>".join(map(plain, lines))}</p>' + "".join(
        code(node.prompt, completion) for node in known
    )
    return Bundle(text, html, data("prompt", completion) | {"technique": root.label}, completion.as_dict())


def summary(completion, root: Node) -> list[str]:
    """Model, technique and settings; what all of it took."""
    usage, calls = completion.usage, root.totals().calls
    price = "" if not completion.remote else " · unpriced" if usage.cost is None else f" · {about(usage.cost, 6)} $"
    return [
        f"{completion.model} · {root.label} · {completion.form} · {settings(completion.sampling)}",
        f"{about(calls, 0)} calls · {about(usage.prompt_tokens, 0)} tokens in, {about(usage.completion_tokens, 0)} "
        f"out · "
        f"{about(usage.seconds, 1)} s{price} · {quoted(ending(completion))}",
    ]


def said_text(completion) -> str:
    """The answer; where none was read off, what was said."""
    if completion.answer is None:
        return answer_text(completion)
    return f"answer: {quoted(completion.answer)}"


def said_html(completion) -> str:
    if completion.answer is None:
        return answer_html(completion)
    return f'<p style="font-size:115%;margin:4px 0"><b>{marked(plain(completion.answer))}</b></p>'


def votes(root: Node) -> list[tuple[str, int, str]]:
    """Answer, votes and a bar for each answer of the last vote; empty where there was none."""
    node = next((node for node in reversed(list(root.walk())) if node.kind == "vote" and node.result), None)
    spread = sorted((node.result if node else {}).items(), key=lambda pair: -pair[1])
    most = max((count for _, count in spread), default=1)
    return [(answer, count, "█" * max(1, round(BAR * count / most))) for answer, count in spread]


def votes_text(root: Node) -> str:
    rows = votes(root)
    width = max((min(len(answer), 40) for answer, *_ in rows), default=0)
    return quoted("\n".join(f"{a[:40]:>{width}}  {bar} {count}" for a, count, bar in rows)) if rows else ""


def votes_html(root: Node) -> str:
    cell = "padding:0 8px 0 4px;background-color:transparent"
    rows = "".join(
        f'<tr style="background-color:transparent"><td style="{cell};text-align:right">{plain(answer[:80])}</td>'
        f'<td style="{cell};text-align:left;color:#4a90c2">{bar}</td><td '
        f'style="{cell};text-align:right">{count}</td></tr>'
        for answer, count, bar in votes(root)
    )
    return marked(f'<table style="border-collapse:collapse">{rows}</table>') if rows else ""


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
        said.append("left behind")
    if totals.tokens_in or totals.tokens_out:
        said.append(f"≈{totals.tokens_in:,} tokens in, ≈{totals.tokens_out:,} out")
    if node.seconds is not None:
        said.append(f"≈{node.seconds:.1f} s")
    if node.cost is not None:
        said.append(f"≈{node.cost:.6f} $")
    return said


def short(text: str, most: int) -> str:
    """One line of a text, cut."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def name_of(node: Node) -> str:
    return node.label or node.kind


def tree_text(root: Node) -> str:
    """A line for each node."""
    lines = [" · ".join([name_of(root), *facts(root, root.totals())])]

    def put(node: Node, before: str, last: bool) -> None:
        said = f"  {short(node.text, LINE)}" if node.text else ""
        note = f"  [{node.note}]" if node.note else ""
        lines.append(
            f"{before}{'└─' if last else '├─'} {' · '.join([name_of(node), *facts(node, node.totals())])}{said}{note}"
        )
        for i, child in enumerate(node.children):
            put(child, before + ("   " if last else "│  "), i == len(node.children) - 1)

    for i, child in enumerate(root.children):
        put(child, "", i == len(root.children) - 1)
    return "\n".join(lines)


def tree_html(root: Node) -> str:
    """Nested `<details>`. No mark of sampled text inside: the whole of it stands between two."""
    count, budget = sum(1 for _ in root.walk()), [HEAVY]

    def put(node: Node, depth: int) -> str:
        grey = "color:#888;" if node.pruned else ""
        small = "".join(f' <span style="{QUIET}">· {plain(fact)}</span>' for fact in facts(node, node.totals()))
        said = f' <span style="color:#888">{plain(short(node.text, LINE))}</span>' if node.text else ""
        head = f"<summary><b>{plain(name_of(node))}</b>{small}{said}</summary>"
        inside = detail(node, budget) + "".join(put(child, depth + 1) for child in node.children)
        opened = " open" if depth == 0 or (count <= OPEN and node.children) else ""
        return f'<details{opened} style="{grey}{INDENT}">{head}{inside}</details>'

    return f'<div style="line-height:1.5;max-width:960px;overflow-wrap:anywhere">{put(root, 0)}</div>'


def detail(node: Node, budget: list[int]) -> str:
    """What is behind the fold of a node: its note, what came back, a tool's result, the exact prompt."""
    parts = [f'<p style="{QUIET};{INDENT}">{plain(node.note)}</p>'] if node.note else []
    if node.text:
        parts.append(box(node.text))
    if node.result is not None:
        parts.append(box(node.result if isinstance(node.result, str) else json.dumps(node.result, ensure_ascii=False)))
    if node.prompt:
        budget[0] -= len(node.prompt)
        shown = (
            box(node.prompt) if budget[0] > 0 else f'<p style="{QUIET};{INDENT}">in completion.trace: too long here</p>'
        )
        parts.append(f'<details style="{INDENT}"><summary style="{QUIET}">the exact prompt</summary>{shown}</details>')
    return "".join(parts)


def box(text: str) -> str:
    """A text as it stands, in monospace."""
    shown = prose(text).replace("«", "&laquo;").replace("»", "&raquo;")
    return f'<div style="{CODE};{INDENT};border-left:3px solid rgba(128,128,128,0.3);padding-left:8px">{shown}</div>'
