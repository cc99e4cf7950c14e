"""Indexes: documents in chunks with their vectors, kept under the store by name and searched from anywhere.

`gpt.index` brings one up to date with its sources; `gpt.indexes[NAME]` is the same one next week in a new kernel.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.options import Count, Options, method, option
from jupyter_gpt.retrieval.build import Report, documents_of, hash_of, up_to_date, update
from jupyter_gpt.retrieval.chunk import OVERLAP, TOKENS
from jupyter_gpt.retrieval.document_sources import Item, as_written, find_documents
from jupyter_gpt.retrieval.embedders import Embedders
from jupyter_gpt.retrieval.index import Index, check_settings, existing_settings
from jupyter_gpt.retrieval.search import Hit, Searcher
from jupyter_gpt.runs.provenance import Provenance, provenance
from jupyter_gpt.runs.worker import Job, aside, on_worker, worker

EMBEDDER = "minilm"
EVEN = 0.5  # the weight of meaning in a hybrid search, unless another is given
Progress = Callable[[str, int, int], None]  # reading, embedding or finishing; how much of it, of how much


def weight(text: str) -> float | bool:
    """The value of --hybrid: a weight, or True where none is given. ValueError says what is wanted instead."""
    try:
        return float(text) if text else True
    except ValueError:
        raise ValueError("a number (such as 0.5)") from None


class Retrieval(Options):
    """How chunks are found: options of every stage that searches an index."""

    group: ClassVar[str] = "Retrieval"

    k: Count = option(4, "chunks to find", "K")
    keyword: bool = option(False, "search for the words alone (BM25), not for the meaning")
    hybrid: bool | float = option(
        False,
        "search for both, and fuse the two lists by rank; WEIGHT, from 0 to 1, is that of meaning against words "
        "(default: "
        "0.5; %gpt evaluate --index says what suits an index)",
        "WEIGHT",
        optional=True,
        kind=weight,
    )
    rerank: str | None = option(
        None, "a cross-encoder that reads question and chunk together and orders what was found", "MODEL"
    )
    mmr: bool = option(False, "of what was found, prefer chunks that are unlike those already taken")
    filter: str | None = option(
        None,
        "only chunks for which this holds, of source, page, heading, text and chunk: \"page > 3 and 'leave' in "
        'heading"',
        "CONDITION",
    )


class SearchOptions(Retrieval):
    """The chunks of an index nearest to a query, best first: `.text`, `.source`, `.page`, `.score`."""

    magic: ClassVar[str] = "gpt.indexes[NAME].search"

    query: str = option(..., "what to search for", positional=True)
    k: Count = option(4, "chunks to find", positional=True)


class KeptIndex:
    """An index of the store. `report` says what the run that made this object did; None for one that was only
    opened.
    """

    def __init__(self, name: str, folder: Path, embedders: Embedders, report: Report | None = None):
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
                f"cannot be "
                f"compared; %gpt index {self.name} --overwrite makes it anew"
            )
        return model

    @staticmethod
    def run(embedder, function: Callable):
        """What `function()` returns: on the worker for a model of the kernel, here for one behind a server."""
        return function() if embedder.remote else on_worker("torch", function)

    @property
    def searcher(self) -> Searcher:
        """The index in memory, loaded anew when its files have changed."""
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


class Indexes(Mapping):
    """Every index under the store, by name."""

    def __init__(self, embedders: Embedders):
        self.embedders = embedders
        self.open: dict[Path, KeptIndex] = {}

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
        found = (path.parent.name for path in (store.home() / "indexes").glob("*/index.json"))
        return iter(sorted(name for name in found if name[0] != "."))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in set(self)


def index(
    session,
    name: str,
    sources: object = None,
    *,
    embedder: str | None = None,
    chunk_tokens: int | None = None,
    overlap: float | None = None,
    add: bool = False,
    overwrite: bool = False,
    variables: Mapping | None = None,
    progress: Progress | None = None,
    fetching: Callable | None = None,
) -> KeptIndex:
    """Bring index `name` up to date with its sources, or make it; only what is new or changed is embedded.

    sources: files, folders, globs, addresses, and `$name` of `variables`; or texts themselves: a list, a Series, a
    DataFrame with a column `text`, a mapping from name to text. Without any, those it has.
    embedder: `minilm` (default), a model of the kernel, an endpoint, a folder, or owner/name of the hub.
    chunk_tokens: of a chunk at most (200).  overlap: the share of a chunk, or tokens, that the next repeats (0.15).
    add: keep what the index holds besides `sources`.  overwrite: let that go, and make it anew where settings differ;
    the cell that made it, and the same sources with the same settings (Run All), may do so without.
    progress: called with (what, done, total) about ten times a second; fetching, as `pull`'s, of an embedder's
    download.

    Documents that cannot be read are skipped and listed in `.report.skipped`. Ctrl-C ends the run and keeps what was
    done; the next goes on from there, as after a kill. Raises GPTError, one line, for a source that is not there, when
    nothing can be indexed, and for an index of other settings or of another embedder.
    """
    indexes = session.indexes
    folder = indexes.folder(name)
    given, variables = as_written(sources, variables)
    existing = existing_settings(folder, overwrite)
    asked_for = {"sources": given, "embedder": embedder, "chunk_tokens": chunk_tokens, "overlap": overlap}
    new, old = provenance("index", asked_for, variables, given), Provenance.read({**existing, "kind": "index"})
    may = overwrite or (bool(existing) and new.may_replace(old))
    made = old if existing and (add or not given) else new
    given, anew = check_settings(name, existing, given, embedder, chunk_tokens, overlap, add, may)
    items, skipped = find_documents(given, variables)
    settings = (
        existing
        if existing and not anew
        else {
            "embedder": embedder or existing.get("embedder", EMBEDDER),
            "chunk_tokens": chunk_tokens or existing.get("chunk_tokens", TOKENS),
            "overlap": existing.get("overlap", OVERLAP) if overlap is None else overlap,
        }
    )
    mark = indexes.embedders.mark(settings["embedder"])
    same_embedder = mark == existing.get("embedder_mark", mark)
    if (
        existing
        and not overwrite
        and same_embedder
        and given == existing.get("sources")
        and up_to_date(Index(folder), items, add)
    ):
        indexes[name].report = Report(skipped=list(skipped), unchanged=len(items))
        return indexes[name]
    if existing and not (may or add):
        check_texts(name, Index(folder), items)
    model = indexes.embedders.get(settings["embedder"], fetching)
    probe = probe_of(model)
    anew = anew or bool(existing and may and not same(probe, existing))
    place = folder.with_name(f".new-{name}") if anew and folder.exists() else folder
    report = Report(skipped=list(skipped))
    store.lock(folder, f"index {name} is being made")
    try:
        if place == folder:  # what was begun anew and not ended is no longer wanted
            shutil.rmtree(folder.with_name(f".new-{name}"), ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        store.sweep(place)
        begin(place, name, {**settings, "embedder_mark": mark}, model, probe, given, made)
        run(Index(place), items, model, report, add, progress)
    finally:
        store.unlock(folder)
    if not report.stopped and not Index(place).counts()["documents"] and (place != folder or not existing):
        shutil.rmtree(place)
        raise GPTError(f"nothing to index in {', '.join(given)}: {summary_of_skipped(report.skipped)}")
    if place != folder and not report.stopped:
        store.replace_folder(place, folder)
    indexes.open.pop(folder, None)
    if place != folder and report.stopped:
        raise GPTError(f"stopped: index {name} is as it was; the same again goes on making the new one")
    updated = indexes[name]
    updated.report = report
    return updated


def probe_of(embedder):
    """The vector of a fixed sentence, which identifies an embedder."""
    from jupyter_gpt.retrieval.embed import PROBE, embed

    return KeptIndex.run(embedder, lambda: embed(embedder, [PROBE])[0])


def same(probe, about: dict) -> bool:
    """Whether an embedder with this probe is the one an index was made with."""
    from jupyter_gpt.retrieval.embed import SAME

    return len(about.get("probe", ())) == len(probe) and float(probe @ about["probe"]) >= SAME


def check_texts(name: str, index: Index, items: Sequence[Item]) -> None:
    """Raises GPTError where a `$variable` shares no text with what the index holds of it: then it is another
    collection.
    """
    stored, texts = documents_of(index), {}
    for item in items:
        if item.text is not None:
            texts.setdefault(item.source.partition("[")[0], set()).add(hash_of(item))
    for variable, hashes in texts.items():
        stored_hashes = {row[0] for source, row in stored.items() if source.partition("[")[0] == variable}
        if stored_hashes and stored_hashes.isdisjoint(hashes):
            raise GPTError(f"index {name} holds other texts of {variable}: choose another name, or say --overwrite")


def begin(folder: Path, name: str, settings: dict, model, probe, sources: list[str], made: Provenance) -> None:
    """Write `index.json` before the work starts, so that a killed run is known for what it was.

    What stands in the folder already, of the same settings and embedder, is gone on with; anything else is cleared.
    Raises GPTError for an embedder that is not the one the index was made with, and for chunks it cannot read whole.
    """
    keys = ("embedder", "chunk_tokens", "overlap")
    if settings["chunk_tokens"] > model.room:
        raise GPTError(
            f"--chunk-tokens {settings['chunk_tokens']} is more than {model.name} reads: at most {model.room}"
        )
    about = Index(folder).about
    if about and not same(probe, about) and not folder.name.startswith(".new-"):
        raise GPTError(
            f"index {name} was made with another {settings['embedder']} than the one that is here now: "
            "their vectors cannot be compared; --overwrite makes it anew"
        )
    if not same(probe, about) or any(about[key] != settings[key] for key in keys):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        about = {"probe": [round(float(x), 6) for x in probe], "dimensions": len(probe)}
    Index(folder).write_about(
        {
            **about,
            **{key: settings[key] for key in (*keys, "embedder_mark")},
            "sources": sources,
            "complete": False,
            "cell_id": made.cell_id,
            "requested": made.requested,
        }
    )


def run(index: Index, items, model, report: Report, add: bool, progress: Progress | None) -> None:
    """The indexing run as a job beside the others of this kernel; an interrupt ends it and keeps what was done."""
    stopping = threading.Event()
    latest: list[tuple[str, int, int]] = []

    def job() -> Iterator[None]:
        for state in update(index, items, model, report, stopping.is_set, add):
            latest[:] = [state]
            yield

    def tick() -> None:
        if latest:
            progress(*latest[0])

    work: Job = aside(job()) if model.remote else worker("torch").submit(job())
    try:
        work.wait(tick if progress else None, stopping.set)
    finally:
        stopping.set()


def summary_of_skipped(skipped: list[tuple[str, str]]) -> str:
    """Why documents were skipped, in one line."""
    shown = "; ".join(f"{source} {why}" for source, why in skipped[:3])
    return shown + (f"; and {len(skipped) - 3} more" if len(skipped) > 3 else "") if skipped else "no document in it"
