"""Indexes: documents in chunks with their vectors, stored under a name: `gpt.indexes[NAME]` in any kernel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.nn.sizes import amount
from jupyter_gpt.options import Count, Options, method, option
from jupyter_gpt.report.parts import Paragraph, Table, Varies
from jupyter_gpt.report.report import Report, ShownAsTable
from jupyter_gpt.retrieval.build import Report as Changes
from jupyter_gpt.retrieval.embedders import Embedders
from jupyter_gpt.retrieval.index import Index
from jupyter_gpt.retrieval.search import Hit, Searcher
from jupyter_gpt.runs.worker import on_worker

HEADER = ("index", "documents", "chunks", "embedder", "chunk", "size", "updated")
EVEN = 0.5  # the weight of meaning in a hybrid search, unless another is given


def weight(text: str) -> float | bool:
    """The value of --hybrid: a weight, or True where none is given. ValueError says what is expected."""
    try:
        return float(text) if text else True
    except ValueError:
        raise ValueError("a number (such as 0.5)") from None


class Retrieval(Options):
    """How chunks are found: options of every stage that searches an index."""

    group: ClassVar[str] = "Retrieval"

    k: Count = option(4, "number of chunks", "K")
    keyword: bool = option(False, "search by words alone (BM25), not by meaning")
    hybrid: bool | float = option(
        False,
        "search for both, and fuse the two lists by rank; WEIGHT, from 0 to 1, is that of meaning against words "
        "(default: 0.5; %gpt evaluate --index shows what suits an index)",
        "WEIGHT",
        optional=True,
        kind=weight,
    )
    rerank: str | None = option(
        None, "cross-encoder that reads question and chunk together and reorders the results", "MODEL"
    )
    mmr: bool = option(False, "prefer chunks that are unlike those already selected (maximal marginal relevance)")
    filter: str | None = option(
        None,
        "only chunks that meet this condition on source, page, heading, text and chunk: "
        "\"page > 3 and 'leave' in heading\"",
        "CONDITION",
    )


class SearchOptions(Retrieval):
    """The chunks of an index nearest to a query, best first: `.text`, `.source`, `.page`, `.score`."""

    magic: ClassVar[str] = "gpt.indexes[NAME].search"

    query: str = option(..., "what to search for", positional=True)
    k: Count = option(4, "number of chunks", positional=True)


class KeptIndex:
    """An index of the store. `report` is that of the run that returned this object, None if it was only opened."""

    def __init__(self, name: str, folder: Path, embedders: Embedders, report: Changes | None = None):
        self.name, self.files, self.embedders, self.report = name, Index(folder), embedders, report
        self.loaded: Searcher | None = None

    @property
    def folder(self) -> Path:
        return self.files.folder

    @property
    def about(self) -> dict:
        """Embedder, dimensions, chunk size, overlap, sources, `near` and when it was updated."""
        return self.files.about

    @property
    def documents(self) -> list[str]:
        """The names of its documents."""
        with self.files.open() as db:
            return [source for (source,) in db.execute("SELECT source FROM documents ORDER BY source")]

    def __len__(self) -> int:
        """How many chunks it has; those of the same text count once."""
        return self.files.counts()["chunks"]

    def __repr__(self) -> str:
        counts, about = self.files.counts(), self.about
        return (
            f"<index {self.name}: {counts['documents']:,} documents, {counts['chunks']:,} chunks, "
            f"embedded with {about['embedder']}>"
        )

    @property
    def embedder(self):
        """What embeds its questions. Raises GPTError when that is no longer what made the index."""
        name, about = self.about["embedder"], self.about
        model = self.embedders.get(name)
        if not same(probe_of(model), about):
            raise GPTError(
                f"index {self.name} was made with another {name} than the one that is here now: their vectors "
                f"cannot be compared; %gpt index {self.name} --overwrite rebuilds it"
            )
        return model

    @staticmethod
    def run(embedder, function: Callable):
        """What `function()` returns: on the worker for a model of the kernel, here for one behind a server."""
        return function() if embedder.remote else on_worker("torch", function)

    @property
    def searcher(self) -> Searcher:
        """The index in memory, loaded again when its files have changed."""
        if self.loaded is None or self.loaded.stamp != self.files.stamp:
            self.loaded = Searcher(self.files)
        return self.loaded

    def vectors(self, texts: Sequence[str], kind: str = "query"):
        """Unit vectors `(n, dimensions)` of the texts, by the index's own embedder."""
        from jupyter_gpt.retrieval.embed import embed

        embedder = self.embedder
        return self.run(embedder, lambda: embed(embedder, texts, kind))

    def search_with(self, options: SearchOptions) -> list[Hit]:
        """The `k` chunks nearest to the query, best first: `.text`, `.source`, `.page`, `.score`.

        Raises GPTError for an empty query, a weight that is none, a filter that cannot be read, and an index whose
        embedder is not here.
        """
        weight, query = weight_of(options.hybrid), options.query
        if options.keyword and weight is not None:
            raise GPTError("--keyword looks for the words alone and --hybrid for both: leave one out")
        if not query.strip():
            raise GPTError("the question is empty: write what to look for")
        scores = self.embedders.reranker(options.rerank) if options.rerank else None
        [vector] = self.vectors([query])
        return self.searcher.search(
            query,
            vector,
            options.k,
            keyword=options.keyword,
            hybrid=weight,
            mmr=options.mmr,
            where=options.filter,
            rerank=scores,
        )

    search = method(SearchOptions, search_with, "search")


def weight_of(hybrid: bool | float) -> float | None:
    """The weight of meaning against words; None where only one of them is asked for."""
    if hybrid is False or hybrid is None:
        return None
    if hybrid is True:
        return EVEN
    if not isinstance(hybrid, int | float) or not 0 <= hybrid <= 1:
        raise GPTError(f"--hybrid takes the weight of meaning against words, from 0 to 1, not {hybrid}")
    return float(hybrid)


class Indexes(ShownAsTable, Mapping):
    """Every index under the store, by name."""

    def __init__(self, embedders: Embedders):
        self.embedders = embedders
        self.open: dict[Path, KeptIndex] = {}

    @property
    def report(self) -> Report:
        return indexes_report(self)

    def folder(self, name: str) -> Path:
        return store.restore(store.home() / "indexes" / store.check_name(name))

    def __getitem__(self, name: str) -> KeptIndex:
        folder = self.folder(name)
        if not (folder / "index.json").exists():
            self.open.pop(folder, None)
            raise GPTError(f"there is no index {name}{nearest(name, self)}: %gpt index {name} SOURCE … makes one")
        if folder not in self.open:
            self.open[folder] = KeptIndex(name, folder, self.embedders)
        return self.open[folder]

    def __iter__(self) -> Iterator[str]:
        store.restore_all(store.home() / "indexes")
        names = (path.parent.name for path in (store.home() / "indexes").glob("*/index.json"))
        return iter(sorted(name for name in names if name[0] != "."))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in set(self)


def probe_of(embedder):
    """The vector of a fixed sentence, which identifies an embedder."""
    from jupyter_gpt.retrieval.embed import PROBE, embed

    return KeptIndex.run(embedder, lambda: embed(embedder, [PROBE])[0])


def same(probe, about: dict) -> bool:
    """Whether an embedder with this probe is the one an index was made with."""
    from jupyter_gpt.retrieval.embed import SAME

    return len(about.get("probe", ())) == len(probe) and float(probe @ about["probe"]) >= SAME


def indexes_report(indexes) -> Report:
    """One row an index: its size, its age, its embedder. One that cannot be read is listed as damaged."""
    rows = []
    for name in indexes:
        try:
            kept = indexes[name]
            counts, settings = kept.files.counts(), kept.about
            chunks = f"{counts['chunks']:,}" + (f" ({counts['pending']:,} to come)" if counts["pending"] else "")
            limit, updated = f"{settings['chunk_tokens']} tokens", Varies(age(settings["updated"]))
            size = Varies(amount(kept.files.size))
            rows.append((name, counts["documents"], chunks, settings["embedder"], limit, size, updated))
        except (GPTError, KeyError):
            rows.append((name, "", "", "damaged", "", "", ""))
    none = Paragraph("No indexes yet. Make one with %gpt index NAME SOURCE …")
    data = {"view": "indexes", "indexes": [row[0] for row in rows]}
    return Report("", [Table(HEADER, rows, "lrrllrl") if rows else none], data)


def age(updated: float) -> str:
    """`5 minutes ago`."""
    seconds = max(0, int(time.time() - updated))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return f"{several(seconds // size, unit)} ago"
    return "just now"


def several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
