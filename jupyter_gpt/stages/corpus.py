"""Corpora: mixtures of document sources, declared by `%%corpus`, used by name, and shown as the data slide's table.

Weights are sampling proportions, whatever the sizes: a small source with a large weight is seen for several epochs, as
Wikipedia and the books are in LLaMA's mixture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest, reading
from jupyter_gpt.options import Count, option
from jupyter_gpt.report.parts import Bar, Inline, Table, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.runs import provenance
from jupyter_gpt.runs.provenance import Provenance, check, plain
from jupyter_gpt.stages.stage import OVERWRITE, Bound, Seed

MIXTURE = """
One source a line with its weight, as YAML; one alone needs none. Weights are sampling
proportions, whatever the sizes: a source of weight 3 is seen three times as often as
one of weight 1.

  ./books/*.txt: 2        a file, glob or folder of .txt, .md, .jsonl, .parquet
  hf:owner/name: 1        a dataset of the Hugging Face hub; in full
                          hf:owner/name/config@split:column (default: @train)
  $articles: 1            a variable of this notebook: a list of texts, or a DataFrame
  stories: 3              generated children's stories
  sums: 1                 generated arithmetic
  python: 1               the source of this Python's standard library
"""
HEADER = ("source", "documents", "tokens", "weight", "share", "epochs")
ENDLESS, UNKNOWN, ESTIMATED = "∞", "?", "~"
MEASURED = ("documents", "tokens", "epochs")
FLAGS = ("varies", "estimated")
BLUE = "rgba(66,133,244,0.6)"


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
