"""A report as JSON, for programs that read a notebook: what every machine agrees on, and apart from it the rest.

nbval compares an output's JSON and cannot fold anything in it; an output's metadata it does not compare.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jupyter_gpt.report.parts import Figures, Inline, Part
from jupyter_gpt.report.text import inline, plain

MARKS = re.compile(r"≈[-–0-9.,e+]+|«[^»]*»")


def data(title: Inline, given: dict) -> dict:
    """The report's own data and its title, with `…` for what varies."""
    return {"title": MARKS.sub("…", inline(title)), **given} if title else given


def metadata(parts: Sequence[Part], given: dict) -> dict:
    """The report's own metadata, and its figures as they stand in the text, without marks."""
    figures = {name: plain(value) for part in parts if isinstance(part, Figures) for name, value in part.rows}
    return {"figures": figures, **given} if figures else given
