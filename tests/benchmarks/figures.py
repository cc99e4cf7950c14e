"""Figures of a benchmark beside its peer, as a line and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """`theirs` is the peer's figure in the same unit, `owed` what ours should reach; higher is better."""

    what: str
    ours: float
    unit: str
    theirs: float | None = None
    owed: float | None = None

    @property
    def cells(self) -> list[str]:
        """What, ours, the peer's, their ratio, owed."""
        number = lambda value: "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: E731
        ratio = f"{self.ours / self.theirs:.2f}×" if self.theirs else "–"
        return [self.what, f"{number(self.ours)} {self.unit}", number(self.theirs), ratio, number(self.owed)]


HEADER = ["what", "ours", "peer", "ratio", "owed"]


def tell(figures: list[Figure], path: Path | None) -> None:
    """Prints the figures, and writes them to a JSON file if there is a path."""
    print(table(figures), flush=True)
    if path:
        path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> list[Figure]:
    return [Figure(**each) for each in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def table(figures: list[Figure]) -> str:
    """A Markdown table."""
    rows = [HEADER, ["---"] * len(HEADER), *(figure.cells for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
