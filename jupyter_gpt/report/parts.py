"""What a report consists of: inline content, and parts, one below the other.

Inline content is text, an int (shown as 1,234), None (shown as –), a `Varies`, a `Span`, a `Bar`, a `Markdown`, or a
sequence of these. A part knows nothing of how it is rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from jupyter_gpt.report.charts import Panel, Plot

Inline: TypeAlias = "str | int | Varies | Span | Bar | Markdown | Sequence[Inline] | None"
Part: TypeAlias = "Paragraph | Figures | Table | Samples | Boxes | Chart | Curves | Alarm | Folded | Tree | Varies"


@dataclass(frozen=True)
class Varies:
    """What may differ on another machine: a number, text that a model wrote, or whole parts.

    The text marks it as `≈1.23` or `«…»`, which tests/nbval.cfg folds; the HTML marks it in comments. `digits` are
    those after the point of a number, by default 3, and none of an int.
    """

    value: Any
    digits: int | None = None


@dataclass(frozen=True)
class Span:
    """Inline content with a look. `style` holds words of bold, italic, code, quiet, large, alarm; `glance` is the
    beginning of what a fold holds, which need not be seen when that is open.

    tint: a CSS colour behind it, translucent, so that it is legible on a light and on a dark ground. tooltip: shown
    where the pointer rests. brackets: two characters around it in the text, where the tint has a meaning.
    """

    content: Inline
    style: str = ""
    tint: str = ""
    tooltip: str = ""
    brackets: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar in segments `(share of the whole, CSS colour, what it is)`; the whole is `width` pixels.

    The text draws it in `columns` characters; with 0 it draws nothing, for a bar beside its number.
    """

    segments: Sequence[tuple[float, str, str]]
    width: int = 140
    columns: int = 0


@dataclass(frozen=True)
class Markdown:
    """An answer in Markdown (see `markdown`); the text has it as it was written. cursor: stands behind it while it
    grows.
    """

    text: str
    cursor: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Inline content; line breaks are kept. `style` as of a `Span`.

    More words of `style`: `block` has an empty line around it in the text, as `code` has; `visual` is left out of the
    text, for it says nothing without its colours.
    """

    content: Inline
    style: str = ""


@dataclass(frozen=True)
class Figures:
    """Named values, a row each."""

    rows: Sequence[tuple[str, Inline]]


@dataclass(frozen=True)
class Table:
    """Rows of inline cells. `sides` has l or r for each column, by default l for the first and r for the others.

    header: empty for none. wrap: the HTML breaks lines between words, but not in the first column nor in columns of
    numbers (side r). A row of empty texts is a gap.
    """

    header: Sequence[Inline]
    rows: Sequence[Sequence[Inline]]
    sides: str = ""
    wrap: bool = False


@dataclass(frozen=True)
class Samples:
    """What was written to the same prompts. `columns` name who wrote it or at which step, `rows` are `(prompt, a text
    for each column)`. One column named "" continues its prompt.
    """

    columns: Sequence[Inline]
    rows: Sequence[tuple[Inline, Sequence[Inline]]]


@dataclass(frozen=True)
class Boxes:
    """Small boxes in running order, each `(text, note beneath it, tint, tooltip)`; a box of None breaks the line."""

    boxes: Sequence[tuple[str, str, str, str] | None]


@dataclass(frozen=True)
class Chart:
    """A plot of `charts`; `alt` describes it. A picture in HTML; the JSON has the numbers, for a chart that tells them.
    The text leaves it out.
    """

    plot: Plot
    alt: Inline


@dataclass(frozen=True)
class Curves:
    """Charts of curves over steps, the first panel large and the others beneath it; `alarms` are steps to mark.

    A picture in HTML; the JSON has the points, for a chart that can be zoomed into. `name` is that of the run, where
    there are others in its panels.
    """

    panels: Sequence[Panel]
    alt: Inline
    alarms: Sequence[int] = ()
    width: int = 680
    name: str = ""


@dataclass(frozen=True)
class Alarm:
    """A warning."""

    content: Inline


@dataclass(frozen=True)
class Folded:
    """Parts behind a click. The text leaves them out, unless `text`."""

    title: Inline
    parts: Sequence[Part]
    text: bool = False


@dataclass(frozen=True)
class Tree:
    """A node: its line, the parts behind a click (which the text leaves out), and its children.

    opened: whether the HTML shows what is inside at first. quiet: shown in grey.
    """

    head: Inline
    parts: Sequence[Part] = ()
    children: Sequence[Tree] = ()
    opened: bool = True
    quiet: bool = False


def number(value: float, digits: int = 0, varies: bool = True) -> Inline:
    """A number that `varies` or does not."""
    return Varies(value, digits) if varies else f"{value:,.{digits}f}"


def bold(content: Inline) -> Span:
    return Span(content, "bold")


def quiet(content: Inline) -> Span:
    return Span(content, "quiet")


def joined(separator: str, items: Sequence[Inline]) -> list[Inline]:
    """The items with the separator between them; those that are "" are left out."""
    kept = [item for item in items if item != ""]
    return [each for item in kept for each in (separator, item)][1:]
