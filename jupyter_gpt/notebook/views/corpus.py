"""The data slide's table: a mixture's sources, what they hold, and how often each is seen.

Weights are sampling proportions, whatever the sizes: a small source of a large weight is seen over several
epochs, as Wikipedia and the books are in LLaMA's mixture.
"""

from __future__ import annotations

from collections.abc import Iterable

from jupyter_gpt.notebook.views.bundle import Bundle, about, escape
from jupyter_gpt.notebook.views.table import html_table, text_table

HEADER = ("source", "documents", "tokens", "weight", "share", "epochs")
ENDLESS, UNKNOWN, ESTIMATED = "∞", "?", "~"


def corpus_bundle(corpus: object, rows: Iterable | None = None) -> Bundle:
    """A corpus as a table; `corpus` has `.name` and `.rows`, or is a name whose `rows` follow.

    A row is a dict or a dataclass: source, documents and tokens (None: endless), weight, share (0 to 1),
    epochs (None: endless or not known yet), `varies` (its counts differ between machines: `≈1,000`) and
    `estimated` (they are extrapolated, `~1,000`, or could not be told at all, `?`).
    """
    name = corpus if isinstance(corpus, str) else corpus.name
    rows = [_plain(row) for row in (corpus.rows if rows is None else rows)]
    lines = [_line(row) for row in rows]
    totals = [_total(rows)] if len(rows) > 1 else []
    title = f"{name}: {len(rows)} source{'s' * (len(rows) != 1)}"
    text = f"{title}\n\n{text_table(HEADER, lines + totals, 'lrrrrr')}"
    barred = [[*line[:4], _bar(row["share"]), line[5]] for line, row in zip(lines, rows, strict=True)]
    html = f"<p><b>{escape(title)}</b></p>{html_table(HEADER, barred + totals, 'lrrrlr', raw=frozenset({4}))}"
    steady = [row if not row["varies"] else row | dict.fromkeys(MEASURED) for row in rows]
    measured = {row["source"]: {key: row[key] for key in MEASURED} for row in rows if row["varies"]}
    data = {"view": "corpus", "name": name, "rows": steady}
    return Bundle(text, html, data, {"measured": measured} if measured else {})


MEASURED = ("documents", "tokens", "epochs")
FLAGS = ("varies", "estimated")


def _plain(row: object) -> dict:
    """A row as a dict with every key."""
    given = row if isinstance(row, dict) else {key: getattr(row, key, None) for key in (*HEADER, *FLAGS)}
    return {key: given.get(key) for key in HEADER} | {key: bool(given.get(key)) for key in FLAGS}


def _line(row: dict) -> list[str]:
    epochs = row["epochs"]
    shown = "–" if epochs is None else about(epochs, 2) if row["varies"] else f"{epochs:,.2f}"
    return [
        str(row["source"]),
        _count(row["documents"], row["varies"], row["estimated"]),
        _count(row["tokens"], row["varies"], row["estimated"]),
        f"{row['weight']:g}",
        f"{row['share']:.1%}",
        shown,
    ]


def _count(number: int | None, varies: bool, estimated: bool) -> str:
    if number is None:
        return UNKNOWN if estimated else ENDLESS
    return about(number, 0) if varies else f"{ESTIMATED if estimated else ''}{number:,}"


def _total(rows: list[dict]) -> list[str]:
    """The last line: sums, endless if any part is, marked if any part is."""
    varies, estimated = (any(row[flag] for row in rows) for flag in FLAGS)
    sums = []
    for key in ("documents", "tokens"):
        parts = [row[key] for row in rows]
        endless = any(row[key] is None and not row["estimated"] for row in rows)
        total = None if None in parts else sum(parts)
        sums.append(_count(total, varies, estimated and not endless))
    weight, share = (sum(row[key] for row in rows) for key in ("weight", "share"))
    return ["together", *sums, f"{weight:g}", f"{share:.1%}", ""]


BAR = "display:inline-block;height:10px;background-color:rgba(66,133,244,0.6);width:"


def _bar(share: float) -> str:
    """The share as a bar with its number; the bar's full width is the whole batch."""
    width = max(1, round(140 * min(1.0, max(0.0, share))))
    return f'<div style="{BAR}{width}px"></div> {share:.1%}'
