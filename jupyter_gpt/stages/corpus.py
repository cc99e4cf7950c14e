"""Corpora: mixtures of document sources, declared once by `%%corpus` and used by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest, reading
from jupyter_gpt.options import Count, option
from jupyter_gpt.runs import provenance
from jupyter_gpt.runs.provenance import Provenance, check, plain
from jupyter_gpt.stages.stage import OVERWRITE, Bound, Seed

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


class CorpusOptions(Bound):
    """a weighted mixture of documents to pretrain on

    Collects the documents, counts them and shows the table of a data slide: documents, tokens, weight, share of the
    sampled batch, epochs. The corpus is kept on disk by its name, for %%pretrain --corpus NAME.
    """

    magic: ClassVar[str] = "%%corpus"
    body_help: ClassVar[str] = MIXTURE
    body_sketch: ClassVar[tuple[str, ...]] = ("source: weight", "…")
    examples: ClassVar[tuple[str, ...]] = ("%%corpus bedtime --tokens 5M", "stories: 3", "./books/*.txt: 1")

    name: str = option(..., "name of the corpus: letters, digits, dots, dashes, underscores", place=True)
    mixture: object = option(
        ..., "a mapping from sources to weights, or its YAML", positional=True, body=True, only="python"
    )
    tokens: Count | None = option(None, "length of the run to reckon the epochs for (10M, 1.5B)", "N")
    seed: Seed = option(0, "decides which documents are generated", "S")
    overwrite: bool = option(False, OVERWRITE)
    variables: Mapping | None = option(None, "values of `$name` sources, by name", only="python")


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
            store.check_types({"cell_id": cell_id}, cell_id=str | None)
            return Corpus(name, mixture.check(weights), cell_id=cell_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


def corpus(session, options: CorpusOptions) -> Corpus:
    """Declare a weighted mixture, and count what is in it.

    Raises GPTError for a source that is missing, empty or unreadable, a weight that is none, and a name that another
    cell gave to another mixture, unless `overwrite`.
    """
    from jupyter_gpt.data import mixture as mixtures

    store.check_name(options.name)
    mixture: Any = options.mixture
    weights = mixtures.parse(mixture) if isinstance(mixture, str) else mixtures.check(mixture)
    new = session.corpora.new(options.name, weights, options.overwrite)
    rows = mixtures.survey(weights, options.variables, options.seed, options.tokens)
    return session.corpora.keep(replace(new, rows=rows))
