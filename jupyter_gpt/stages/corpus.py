"""Corpora: mixtures of document sources, declared once by `%%corpus` and used by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest, reading
from jupyter_gpt.runs import provenance
from jupyter_gpt.runs.provenance import Provenance, check, plain

MIXTURE = """
One source a line with its weight, as YAML. Weights are sampling proportions, whatever
the sizes: a source of weight 3 is seen three times as often as one of weight 1.

  ./books/*.txt: 2        a file, glob or folder of .txt, .md, .jsonl, .parquet
  hf:owner/name: 1        a dataset of the Hugging Face hub; hf:owner/name:column where
                          it has several columns of text
  $articles: 1            a variable of this notebook: a list of texts, or a DataFrame
  stories: 3              generated children's stories
  sums: 1                 generated arithmetic
  python: 1               the source of this Python's standard library
"""


@dataclass(frozen=True)
class Corpus:
    """A named mixture: `weights` by source, and what was counted when it was declared."""

    name: str
    weights: dict[str, float]
    rows: list = field(default_factory=list, repr=False)
    cell_id: str | None = None

    @property
    def provenance(self) -> Provenance:
        """By which cell it was declared, and as what."""
        return Provenance("corpus", self.cell_id, {"mixture": plain(self.weights)})


class Corpora(Mapping):
    """The corpora declared in this folder, `corpora/NAME.yaml`: the mixture, and below `---` which cell declared it."""

    def folder(self) -> Path:
        return store.home() / "corpora"

    def names(self) -> list[str]:
        return sorted(f.stem for f in self.folder().glob("*.yaml"))

    def new(self, name: str, weights: Mapping[str, float], overwrite: bool) -> Corpus:
        """A mixture that is to have this name. Raises GPTError where another cell gave it to another mixture."""
        corpus = Corpus(store.check_name(name), dict(weights), cell_id=provenance.running_cell())
        try:
            old = self[name] if name in self.names() else None
        except GPTError:
            old = None  # damaged: to be declared again
        if old is not None:
            check(name, old.provenance, corpus.provenance, overwrite)
        return corpus

    def keep(self, corpus: Corpus) -> Corpus:
        """Write it down under its name."""
        import yaml

        parts = [corpus.weights, {"cell_id": corpus.cell_id}]
        store.write_text(self.folder() / f"{corpus.name}.yaml", yaml.safe_dump_all(parts, sort_keys=False))
        return corpus

    def __getitem__(self, name: str) -> Corpus:
        import yaml

        from jupyter_gpt.data import mixture

        path = self.folder() / f"{store.check_name(name)}.yaml"
        if not path.exists():
            raise GPTError(f"there is no corpus {name}{nearest(name, self.names())}: declare it with %%corpus {name}")
        with reading(f"corpus {name}", f"%%corpus {name} declares it again"):
            weights, *rest = yaml.safe_load_all(path.read_text(encoding="utf-8"))
            cell_id = rest[0]["cell_id"] if rest else None
            store.check_kinds({"cell_id": cell_id}, cell_id=str | None)
            return Corpus(name, mixture.check(weights), cell_id=cell_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())
