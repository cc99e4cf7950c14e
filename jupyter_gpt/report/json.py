"""A report as JSON: what every machine agrees on for programs that read a notebook, and apart from it the rest.

nbval compares an output's JSON and cannot fold anything in it; an output's metadata it does not compare. So the parts,
of which the renderer in JupyterLab draws the report (labextension/src/report.ts), stand in the metadata, with what
varies as plain values.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from jupyter_gpt.report import charts
from jupyter_gpt.report.markdown import Element, parse
from jupyter_gpt.report.parts import Curves, Figures, Inline, Markdown, Part, Varies
from jupyter_gpt.report.text import inline, number, plain

MARKS = re.compile(r"≈[-–0-9.,e+]+|«[^»]*»")
FORMAT = 1  # of the parts; to be raised when a renderer that knows the earlier one would draw them wrongly
MOST = 4_000_000  # characters of parts; what is larger has its HTML alone
EXACT = 2**53  # from which on JavaScript has no exact integers


def data(title: Inline, given: dict) -> dict:
    """The report's own data and its title, with `…` for what varies."""
    return {"title": MARKS.sub("…", inline(title)), **given} if title else given


def metadata(title: Inline, parts: Sequence[Part], given: dict) -> dict:
    """The report's own metadata, its figures as they stand in the text without marks, and all its parts."""
    found = dict(given)
    if figures := {name: plain(value) for part in parts if isinstance(part, Figures) for name, value in part.rows}:
        found = {"figures": figures, **found}
    if parts and (report := whole(title, parts)):
        found["parts"] = report
    return found


def whole(title: Inline, parts: Sequence[Part]) -> dict | None:
    """The title and the parts, with the version of their format; None where they are more than `MOST`."""
    report = {"format": FORMAT, "title": encoded(title), "parts": encoded(parts)}
    return report if len(json.dumps(report, ensure_ascii=False)) <= MOST else None


def encoded(value: Any) -> Any:
    """A part or inline content: an object with its fields and its `kind`; a number that is not shown as JSON has it as
    `{"value": 0.5, "text": "0.500"}`; a part that varies as the list of what it holds.
    """
    match value:
        case None | str() | bool():
            return value
        case int():
            return int(value) if abs(value) < EXACT else f"{value:,}"
        case float():
            return charts.short(value)
        case Varies(inner, digits):
            shown = number(inner, digits)
            if shown is None:
                return encoded(str(inner) if isinstance(inner, float) else inner)
            counted = inner is None or (isinstance(inner, int) and not digits)
            return encoded(inner) if counted else {"value": inner, "text": shown}
        case Markdown(text, cursor):
            return {"kind": "markdown", "text": text, "blocks": encoded(parse(text + cursor))}
        case Element(tag, inside, about):
            return {
                "tag": tag,
                **({"value": about} if about else {}),
                **({"inside": encoded(inside)} if inside else {}),
            }
        case Curves():
            return {
                "kind": "curves",
                "alt": plain(value.alt),
                "width": value.width,
                "alarms": list(value.alarms),
                "panels": [panel(each) for each in value.panels],
                **charts.columns([each.points for each in value.panels]),
                **runs(value),
            }
    if dataclasses.is_dataclass(value):
        fields = {field.name: (getattr(value, field.name), field.default) for field in dataclasses.fields(value)}
        shown = {name: encoded(held) for name, (held, usual) in fields.items() if held != usual}
        return {"kind": type(value).__name__.lower(), **shown}
    return [encoded(each) for each in value]


def runs(value: Curves) -> dict:
    """Where other runs stand beside the run: the names and the columns of theirs."""
    of = [dict(each.others) for each in value.panels]
    names = dict.fromkeys(name for others in of for name in others)
    found = [{"name": name, **charts.columns([each.get(name, ()) for each in of])} for name in names]
    return {"name": value.name, "others": found} if found else {}


def panel(given: charts.Panel) -> dict:
    """What a panel has beside the points of its training."""
    bounds = {step: (low, high) for step, low, high in given.interval}
    evaluated = [[step, value, *bounds.get(step, ())] for step, value in charts.thinned(given.evaluated)]
    return {
        "title": given.title,
        "names": list(given.names),
        "smoothed": given.smoothed,
        "limit": given.limit,
        "evaluated": [[charts.short(each) for each in row] for row in evaluated],
    }
