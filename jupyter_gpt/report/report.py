"""The report that a stage returns; a notebook shows it wherever it shows a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from jupyter_gpt.report import html, json, text
from jupyter_gpt.report.parts import Inline, Part

MIME = "application/vnd.jupyter-gpt+json"


@dataclass(frozen=True)
class Report:
    """A title (it may be empty) and parts. `data` holds only what every machine agrees on, `metadata` the rest."""

    title: Inline
    parts: Sequence[Part] = ()
    data: dict = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)

    @cached_property
    def text(self) -> str:
        return text.render(self.title, self.parts)

    @cached_property
    def html(self) -> str:
        return html.render(self.title, self.parts)

    def mime(self) -> dict:
        """The report in all three formats."""
        return {"text/plain": self.text, "text/html": self.html, MIME: json.data(self.title, self.data)}

    def _repr_mimebundle_(self, include=None, exclude=None):
        """The mime bundle and its metadata, as `display(data, metadata=…, raw=True)` takes them."""
        found = json.metadata(self.title, self.parts, self.metadata)
        return self.mime(), ({MIME: found} if found else {})

    def __repr__(self) -> str:
        return self.text


class Shown:
    """Mixed into what shows its `report` where a notebook shows a value."""

    @property
    def report(self) -> Report:
        raise NotImplementedError

    def _repr_mimebundle_(self, include=None, exclude=None):
        return self.report._repr_mimebundle_()


class ShownAsTable(Shown):
    """What prints its report too."""

    def __repr__(self) -> str:
        return text.render(self.report.title, self.report.parts, marks=False)
