"""Corpora: mixtures of document sources, declared once by `%%corpus` and used by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.session import store


@dataclass(frozen=True)
class Corpus:
    """A named mixture: `weights` by source, and what was counted when it was declared."""

    name: str
    weights: dict[str, float]
    rows: list = field(default_factory=list, repr=False)


class Corpora(Mapping):
    """The corpora declared in this folder, `corpora/NAME.yaml`."""

    def folder(self) -> Path:
        return store.home() / "corpora"

    def names(self) -> list[str]:
        return sorted(f.stem for f in self.folder().glob("*.yaml"))

    def declare(self, name: str, weights: Mapping[str, float], rows: list) -> Corpus:
        """Keep a mixture under its name; declaring it again replaces it."""
        import yaml

        corpus = Corpus(name, dict(weights), rows)
        store.write_text(self.folder() / f"{name}.yaml", yaml.safe_dump(corpus.weights, sort_keys=False))
        return corpus

    def __getitem__(self, name: str) -> Corpus:
        import yaml

        path = self.folder() / f"{store.check_name(name)}.yaml"
        if not path.exists():
            raise GPTError(f"there is no corpus {name}{nearest(name, self.names())}: declare it with %%corpus {name}")
        return Corpus(name, yaml.safe_load(path.read_text(encoding="utf-8")))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())
