"""A report as plain text: aligned, monospace, and the same in each execution except between its marks.

A number that varies is `≈1.23`, other content that varies `«…»`: one sanitizer of nbval (tests/nbval.cfg) folds both.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from jupyter_gpt.report.parts import (
    Alarm,
    Bar,
    Boxes,
    Chart,
    Curves,
    Figures,
    Folded,
    Inline,
    Markdown,
    Paragraph,
    Part,
    Samples,
    Span,
    Table,
    Tree,
    Varies,
)

LONG = 100  # columns of the longest rule beneath a header
WIDTH = 96  # columns of a line of boxes
CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {0x7F: "␡"}
CONTROLS |= dict.fromkeys(range(0x80, 0xA0), "\ufffd")
SHADES = "█▒▓"  # of a bar's segments; what is left is light


def render(title: Inline, parts: Sequence[Part], marks: bool = True) -> str:
    return printable(blocks([Paragraph(title), *parts], marks))


def printable(text: str) -> str:
    """`text` with its control characters as signs (␛): what a model or a document wrote steers no terminal."""
    return text.translate(CONTROLS)


def blocks(parts: Sequence[Part], marks: bool) -> str:
    """Parts beneath one another."""
    text, before = "", False
    for part in parts:
        shown = block(part, marks)
        if not shown:
            continue
        apart = stands_apart(part)
        text += ("\n\n" if apart or before else "\n") * bool(text) + shown
        before = apart
    return text


def stands_apart(part: Part) -> bool:
    """Whether there is an empty line above and below; by the kind of the part, never by what it happens to hold."""
    if isinstance(part, Paragraph):
        return bool({"code", "block"} & set(part.style.split()))
    return isinstance(part, Table | Samples | Boxes | Tree | Varies)


def block(part: Part, marks: bool) -> str:
    match part:
        case Paragraph():
            return "" if "visual" in part.style else inline(part.content, marks)
        case Figures(rows):
            return indented(table((), [(name, value) for name, value in rows], "ll", marks))
        case Table():
            return table(part.header, part.rows, part.sides, marks)
        case Samples():
            return samples(part, marks)
        case Boxes():
            return boxes(part, marks)
        case Chart() | Curves():
            return ""
        case Alarm():
            return f"! {inline(part.content, marks)}"
        case Folded():
            return blocks([Paragraph(part.title), *part.parts], marks) if part.text else ""
        case Tree():
            return "\n".join(tree(part, marks))
        case Varies(value):
            text = blocks(value, False)
            return text if not marks else f"«\n{text}\n»" if "\n" in text else f"«{text}»"
    raise TypeError(f"{type(part).__name__} is no part of a report")


def inline(content: Inline, marks: bool = True) -> str:
    """Inline content as text. Without `marks` it may stand between marks: its own guillemets end none."""
    match content:
        case None:
            return "–"
        case str():
            return content if marks else content.replace("«", "‹").replace("»", "›")
        case int():
            return f"{content:,}"
        case Varies(value, digits):
            if (shown := number(value, digits)) is not None:
                return "≈" * marks + shown
            inner = inline(value if not isinstance(value, float) else str(value), False)
            return f"«{inner}»" if marks else inner
        case Span():
            opened, closed = part if len(part := content.brackets) == 2 else ("", "")
            return f"{opened}{inline(content.content, marks)}{closed}"
        case Bar():
            return bar(content)
        case Markdown(text, cursor):
            return inline(text + cursor, marks)
    return "".join(inline(each, marks) for each in content)


def plain(content: Inline) -> str:
    """Inline content as text without marks, for a title of a picture or a tooltip."""
    return inline(content, False)


def number(value: object, digits: int | None) -> str | None:
    """`1,234.500`, an int without a point, None as `–`; None for what is no finite number."""
    if value is None:
        return "–"
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return f"{value:,.{(0 if isinstance(value, int) else 3) if digits is None else digits}f}"


def columns(text: str) -> int:
    """How many monospace columns a text takes: two a wide East Asian character, none a combining mark."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, width: int, side: str = "l") -> str:
    """`text` padded with spaces to `width` monospace columns; `side` is its alignment: l or r."""
    room = " " * max(0, width - columns(text))
    return room + text if side == "r" else text + room


def sides_of(part_sides: str, count: int) -> str:
    """The side of each column."""
    return part_sides or "l" + "r" * (count - 1)


def table(header: Sequence[Inline], rows: Sequence[Sequence[Inline]], sides: str, marks: bool = True) -> str:
    """Header, a rule, the rows. The last column may take several lines; in others a line break is shown as ⏎."""
    found = [[inline(cell, marks) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not found:
        return ""
    count = len(found[0])
    sides = sides_of(sides, count)
    found = [[*(cell.replace("\n", "⏎") for cell in row[:-1]), row[-1]] for row in found]
    widths = [max(columns(line) for row in found for line in row[i].split("\n")) for i in range(count)]
    before = " " * (sum(widths[:-1]) + 2 * (count - 1))

    def line(row: Sequence[str]) -> str:
        first, *more = row[-1].split("\n")
        cells = [pad(cell, width, side) for cell, width, side in zip([*row[:-1], first], widths, sides, strict=True)]
        return "\n".join(["  ".join(cells).rstrip(), *(f"{before}{each}".rstrip() for each in more)])

    lines = [line(row) for row in found]
    if header:
        rule = ["─" * width for width in widths]
        lines.insert(1, line([*rule[:-1], rule[-1][:LONG]]))
    return "\n".join(lines)


def indented(text: str, by: str = "  ") -> str:
    return "\n".join(f"{by}{line}" if line else line for line in text.split("\n"))


def samples(part: Samples, marks: bool) -> str:
    names = [inline(name, marks) for name in part.columns]
    if names == [""]:
        return "\n".join(indented(" ".join(inline(x, marks) for x in (p, *texts))) for p, texts in part.rows)
    return "\n\n".join(
        "\n".join([inline(prompt, marks), indented(table((), list(zip(names, texts, strict=True)), "ll", marks))])
        for prompt, texts in part.rows
    )


def boxes(part: Boxes, marks: bool) -> str:
    """Two lines of cells, the texts above and the notes beneath, wrapped."""
    lines, above, beneath = [], "", ""
    for box in [*part.boxes, None]:
        text, note = (inline(box[0], marks), box[1]) if box else ("", "")
        cell = max(columns(text), len(note)) if box else WIDTH
        if above and columns(above) + 1 + cell > WIDTH:
            lines.append(f"{above.rstrip()}\n{beneath.rstrip()}")
            above, beneath = "", ""
        if box:
            edge = "│" if above else ""
            above, beneath = above + edge + pad(text, cell), beneath + edge + pad(note, cell)
    return "\n\n".join(lines)


def bar(part: Bar) -> str:
    if not part.columns:
        return ""
    text, total = "", 0.0
    for shade, (share, _, _) in zip(SHADES * len(part.segments), part.segments, strict=False):
        total = min(1.0, total + share)
        text += shade * max(round(total * part.columns) - len(text), share > 0)
    return f"[{text[: part.columns]:░<{part.columns}}]"


def tree(node: Tree, marks: bool, before: str = "", branch: str = "") -> list[str]:
    """A line for each node."""
    lines = [before + branch + inline(node.head, marks)]
    before += {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    for child in node.children:
        lines += tree(child, marks, before, "└─ " if child is node.children[-1] else "├─ ")
    return lines
