"""The static bundle: what a cell leaves behind, readable with no kernel, no widget and no trust.

A bundle is one display in three formats: stable `text/plain`, `text/html` that survives a sanitizer, and
`application/vnd.jupyter-gpt+json` for the JupyterLab renderer. What differs from machine to machine is marked
in text and html, numbers as `≈1.23` and sampled text as `«…»`, so that one nbval sanitizer folds it; in html the marks
may stand in comments, `<!--«-->…<!--»-->`, around whatever goes with the text (tints, votes, hiding). Curves and
clocks travel in the metadata, which nbval does not compare.
"""

from __future__ import annotations

import base64
import html as _html
from dataclasses import dataclass, field

MIME = "application/vnd.jupyter-gpt+json"


@dataclass(frozen=True)
class Bundle:
    """One static display. `data` holds only what every machine agrees on; `metadata` the rest."""

    text: str
    html: str
    data: dict
    metadata: dict = field(default_factory=dict)

    def mime(self) -> dict:
        """The mime bundle, as `display(..., raw=True)` takes it."""
        return {"text/plain": self.text, "text/html": self.html, MIME: self.data}

    def _repr_mimebundle_(self, include=None, exclude=None):
        return self.mime(), ({MIME: self.metadata} if self.metadata else {})

    def __repr__(self) -> str:
        return self.text


def about(value: float | None, digits: int = 3) -> str:
    """`≈3.214`: a number that may differ on another machine; `≈–` when there is none."""
    return "≈–" if value is None else f"≈{value:,.{digits}f}"


def quoted(text: str) -> str:
    """`«text»`: text that a model sampled, which may differ on another machine."""
    return "«" + text.replace("«", "‹").replace("»", "›") + "»"


def marked(html: str) -> str:
    """HTML that may differ on another machine, its marks in comments where no reader sees them; none may be inside."""
    return f"<!--«-->{html}<!--»-->"


def plain(text: str) -> str:
    """Text made safe to stand in HTML between marks: its own guillemets are entities, and end none."""
    return escape(text).replace("«", "&laquo;").replace("»", "&raquo;")


def escape(text: object) -> str:
    """Text made safe to stand in HTML, quotes included."""
    return _html.escape(str(text), quote=True)


def image(png: bytes, alt: str, width: int) -> str:
    """An `<img>` with its data inside; `alt` says in words what the picture shows."""
    source = base64.b64encode(png).decode()
    return f'<img src="data:image/png;base64,{source}" alt="{escape(alt)}" width="{width}">'


def plain_label(text: str) -> str:
    """A label for matplotlib that is drawn as it is: a pair of dollar signs would make it read mathematics."""
    return text.replace("$", r"\$")
