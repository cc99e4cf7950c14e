"""The data slide's table: a mixture's sources, what they hold, and how often each is seen.

Weights are sampling proportions, whatever the sizes: a small source of a large weight is seen over several epochs, as
Wikipedia and the books are in LLaMA's mixture.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jupyter_gpt.report.parts import Bar, Inline, Table, Varies
from jupyter_gpt.report.report import Report

HEADER = ("source", "documents", "tokens", "weight", "share", "epochs")
ENDLESS, UNKNOWN, ESTIMATED = "∞", "?", "~"
MEASURED = ("documents", "tokens", "epochs")
FLAGS = ("varies", "estimated")
BLUE = "rgba(66,133,244,0.6)"


def corpus_report(corpus: Any, rows: Iterable | None = None) -> Report:
    """A corpus as a table; `corpus` has `.name` and `.rows`, or is a name whose `rows` follow.

    A row is a dict or a dataclass: source, documents and tokens (None: endless), weight, share (0 to 1), epochs (None:
    endless or not known yet), `varies` (its counts differ between machines) and `estimated` (they are extrapolated,
    `~1,000`, or could not be told at all, `?`).
    """
    name, given = (corpus.name, corpus.rows) if rows is None else (corpus, rows)
    rows = [_plain(row) for row in given]
    lines = [_line(row) for row in rows] + ([_total(rows)] if len(rows) > 1 else [])
    steady = [row if not row["varies"] else row | dict.fromkeys(MEASURED) for row in rows]
    measured = {row["source"]: {key: row[key] for key in MEASURED} for row in rows if row["varies"]}
    return Report(
        f"{name}: {len(rows)} source{'s' * (len(rows) != 1)}",
        [Table(HEADER, lines, "lrrrlr")],
        {"view": "corpus", "name": name, "rows": steady},
        {"measured": measured} if measured else {},
    )


def _plain(row: object) -> dict:
    """A row as a dict with every key."""
    given = row if isinstance(row, dict) else {key: getattr(row, key, None) for key in (*HEADER, *FLAGS)}
    return {key: given.get(key) for key in HEADER} | {key: bool(given.get(key)) for key in FLAGS}


def _line(row: dict) -> list[Inline]:
    counts = [_count(row[key], row["varies"], row["estimated"]) for key in ("documents", "tokens")]
    epochs = None if row["epochs"] is None else Varies(row["epochs"], 2) if row["varies"] else f"{row['epochs']:,.2f}"
    share = [f"{row['share']:>6.1%}", Bar([(min(1.0, row["share"]), BLUE, "")])]
    return [str(row["source"]), *counts, f"{row['weight']:g}", share, epochs]


def _count(number: int | None, varies: bool, estimated: bool) -> Inline:
    if number is None:
        return UNKNOWN if estimated else ENDLESS
    return Varies(number, 0) if varies else f"{ESTIMATED * estimated}{number:,}"


def _total(rows: list[dict]) -> list[Inline]:
    """The last line: sums, endless if any part is, varying if any part does."""
    varies, estimated = (any(row[flag] for row in rows) for flag in FLAGS)
    sums = []
    for key in ("documents", "tokens"):
        parts = [row[key] for row in rows]
        endless = any(row[key] is None and not row["estimated"] for row in rows)
        sums.append(_count(None if None in parts else sum(parts), varies, estimated and not endless))
    weight, share = (sum(row[key] for row in rows) for key in ("weight", "share"))
    return ["total", *sums, f"{weight:g}", f"{share:>6.1%}", ""]
