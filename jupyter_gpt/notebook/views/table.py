"""A table twice: aligned monospace text, and its HTML, which sanitizers keep and both themes can show."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from jupyter_gpt.notebook.views.bundle import escape

RULE = "1px solid rgba(128,128,128,0.45)"
CODE = "font-family:monospace;font-size:13px;line-height:1.5"


def columns(text: str) -> int:
    """How many monospace columns a text takes: two a wide East Asian character, none a combining mark."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, width: int, side: str = "l") -> str:
    """`text` filled with spaces to `width` monospace columns; `side` is where it stands: l, r or c."""
    room = max(0, width - columns(text))
    left = {"l": 0, "r": room, "c": room // 2}[side]
    return " " * left + text + " " * (room - left)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> str:
    """Header, a rule, the rows; `sides` has l or r for each column. A row of only "" is an empty line."""
    widths = [max(columns(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(pad(c, w, s) for c, w, s in zip(cells, widths, sides, strict=True)).rstrip()

    return "\n".join([line(header), line(["─" * w for w in widths]), *map(line, rows)])


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], sides: str, *, raw: frozenset = frozenset()
) -> str:
    """The same as an HTML table, inline styles only; every cell is escaped, except the columns in `raw`."""
    places = [{"l": "left", "r": "right"}[side] for side in sides]

    def cell(tag: str, text: str, column: int, rule: str) -> str:
        style = f"text-align:{places[column]};padding:2px 14px 2px 4px;white-space:nowrap;{rule}"
        shown = text if tag == "td" and column in raw else escape(text).replace("  ", "&nbsp; ")
        return f'<{tag} style="{style}">{shown}</{tag}>'

    head = "".join(cell("th", text, i, f"border-bottom:{RULE}") for i, text in enumerate(header))
    body = []
    for row in rows:
        gap = "" if any(row) else "height:8px"
        body.append("<tr>" + "".join(cell("td", text, i, gap) for i, text in enumerate(row)) + "</tr>")
    return (
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    )
