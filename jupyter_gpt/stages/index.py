"""`%gpt index`, `indexes`, `search`: documents made ready to be found, and found."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.options import Count, NotNegative, option
from jupyter_gpt.report.parts import Paragraph, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.retrieval.build import Report as Changes
from jupyter_gpt.retrieval.build import documents_of, hash_of, up_to_date, update
from jupyter_gpt.retrieval.chunk import OVERLAP, TOKENS
from jupyter_gpt.retrieval.document_sources import SUPPORTED, Item, as_written, find_documents
from jupyter_gpt.retrieval.index import Index as Files
from jupyter_gpt.retrieval.indexes import KeptIndex, Retrieval, probe_of, same, several
from jupyter_gpt.runs.provenance import Provenance, provenance
from jupyter_gpt.runs.worker import Job, aside, worker
from jupyter_gpt.stages.stage import Bound

NAMED = 5  # documents named of each kind
DEFAULTS = {"embedder": "minilm", "chunk_tokens": TOKENS, "overlap": OVERLAP}


class Index(Bound):
    """make documents ready to be searched, or bring an index up to date

    Cuts documents into chunks, embeds them, and keeps both under .jupyter_gpt/indexes/NAME, a folder that may be moved.
    Run again, it embeds only what is new or changed, and removes what is gone from its sources; without sources it
    looks at those it has. What cannot be read is skipped and named. ■ stops it and keeps what was done; the next run
    continues.
    """

    magic: ClassVar[str] = "%gpt index"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt index docs ./handbook/*.pdf ./notes --embedder minilm",
        "%gpt index docs",
        "%gpt index mine $texts --embedder storyteller",
    )

    name: str = option(..., "name of the index", place=True, complete="indexes")
    sources: object = option(
        None,
        f"files, globs, folders ({SUPPORTED}), addresses, and $variables with texts",
        place=True,
        many=True,
        literal=True,
        complete="files",
    )
    embedder: str | None = option(
        None,
        "minilm (the default), a model of this notebook (its last hidden states, averaged), an endpoint, a folder or "
        "owner/name of the hub",
        "MODEL",
        complete="models",
        hints=("minilm",),
    )
    chunk_tokens: Annotated[int, Field(ge=8)] | None = option(
        None, f"maximum tokens per chunk, counted by the embedder (default: {TOKENS})", "N"
    )
    overlap: NotNegative | None = option(
        None, f"share of a chunk that the next repeats, or how many tokens (default: {OVERLAP})", "SHARE"
    )
    add: bool = option(False, "keep what the index contains besides these sources")
    overwrite: bool = option(False, "remove sources not named here, and rebuild the index where settings differ")
    variables: Mapping | None = option(None, "values of `$name` sources, by name", only="python")
    progress: Callable | None = option(None, "called with (what, done, total) about ten times a second", only="python")
    fetching: Callable | None = option(None, "as `progress`, of an embedder's download", only="python")


class Indexes(Bound):
    """the indexes of this folder: size, age, embedder

    Lists every index under .jupyter_gpt/indexes.
    """

    magic: ClassVar[str] = "%gpt indexes"


class Search(Retrieval, Bound):
    """look something up in an index

    Shows the chunks nearest to a question, with their scores, sources and pages, the question's words marked, and a map
    of the index with the question and its hits.
    """

    magic: ClassVar[str] = "%gpt search"
    examples: ClassVar[tuple[str, ...]] = (
        '%gpt search docs "How many days of leave do I have?"',
        "%gpt search docs 'parental leave' --hybrid --filter \"page > 3\"",
    )

    index: str = option(..., "the index", place=True, complete="indexes")
    query: str = option(..., "what to search for, in quotes", place=True)
    k: Count = option(4, "chunks to find", "K", positional=True, group="Retrieval")
    map: Literal["pca", "umap", "none"] = option(
        "pca", "how the map is drawn: the principal components, or UMAP (an extra)", only="magic"
    )


def index(session, options: Index) -> KeptIndex:
    """Make an index or bring it up to date. Ctrl-C ends the run and keeps what was done; the next one continues.

    The cell that made it, and the same sources with the same settings (Run All), may replace it without `overwrite`.
    Documents that cannot be read are skipped and listed in `.report.skipped`. Raises GPTError for a source that is not
    there, when nothing can be indexed, and for an index of other settings or of another embedder.
    """
    name, indexes, overwrite = options.name, session.indexes, options.overwrite
    folder = indexes.folder(name)
    sources, variables = as_written(options.sources, options.variables)
    old_settings = existing_settings(folder, overwrite)
    requested = {key: getattr(options, key) for key in DEFAULTS}
    new = provenance("index", {"sources": sources, **requested}, variables, sources)
    old = Provenance.read({**old_settings, "kind": "index"})
    may = overwrite or (bool(old_settings) and new.may_replace(old))
    made = old if old_settings and (options.add or not sources) else new
    sources, rebuild = check_settings(name, old_settings, sources, requested, options.add, may)
    items, skipped = find_documents(sources, variables)
    settings = {
        key: old_settings.get(key, default) if requested[key] is None else requested[key]
        for key, default in DEFAULTS.items()
    }
    mark = indexes.embedders.mark(settings["embedder"])
    same_run = (
        old_settings
        and not overwrite
        and sources == old_settings.get("sources")
        and mark == old_settings.get("embedder_mark", mark)
    )
    if same_run and up_to_date(Files(folder), items, options.add):
        indexes[name].report = Changes(skipped=list(skipped), unchanged=len(items))
        return indexes[name]
    if old_settings and not (may or options.add):
        check_texts(name, Files(folder), items)
    model = indexes.embedders.get(settings["embedder"], options.fetching)
    probe = probe_of(model)
    rebuild = rebuild or bool(old_settings and may and not same(probe, old_settings))
    place = folder.with_name(f".new-{name}") if rebuild and folder.exists() else folder
    report = Changes(skipped=list(skipped))
    store.lock(folder, f"index {name} is being made")
    try:
        if place == folder:  # a rebuild that did not finish is no longer needed
            shutil.rmtree(folder.with_name(f".new-{name}"), ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        store.sweep(place)
        begin(place, name, {**settings, "embedder_mark": mark}, model, probe, sources, made)
        run(Files(place), items, model, report, options.add, options.progress)
    finally:
        store.unlock(folder)
    if not report.stopped and not Files(place).counts()["documents"] and (place != folder or not old_settings):
        shutil.rmtree(place)
        raise GPTError(f"nothing to index in {', '.join(sources)}: {summary_of_skipped(report.skipped)}")
    if place != folder and not report.stopped:
        store.replace_folder(place, folder)
    indexes.open.pop(folder, None)
    if place != folder and report.stopped:
        raise GPTError(f"stopped: index {name} is as it was; the same cell continues with the new one")
    updated = indexes[name]
    updated.report = report
    return updated


def existing_settings(folder: Path, overwrite: bool) -> dict:
    """The settings of an index that exists; empty for a damaged one that is to be overwritten."""
    try:
        about = Files(folder).about
        if about:
            Files(folder).matrix()
        return about
    except GPTError:
        if not overwrite:
            raise
        return {}


def check_settings(
    name: str, old: dict, given: list[str], requested: Mapping, add: bool, overwrite: bool
) -> tuple[list[str], bool]:
    """The sources an index will have, and whether it must be rebuilt. Raises GPTError for what needs --overwrite.

    old: its settings so far. overwrite: also True for the cell, or the sources and settings, that made the index.
    """
    if not old and not given:
        raise GPTError(f"index {name} has no sources: give files, folders, globs or $variables")
    overlap = requested["overlap"]
    if overlap is not None and overlap >= (requested["chunk_tokens"] or old.get("chunk_tokens", TOKENS)):
        raise GPTError(
            f"--overlap {overlap:g} must be a share of a chunk below 1, or a number of tokens below --chunk-tokens"
        )
    changed = [key for key, value in requested.items() if old and value is not None and value != old[key]]
    if changed and not overwrite:
        key = changed[0]
        what = f"{old[key]} tokens per chunk" if key == "chunk_tokens" else f"{key} {old[key]}"
        raise GPTError(
            f"index {name} was made with {what}, not {requested[key]}: leave --{key.replace('_', '-')} out, "
            "or use --overwrite to rebuild it"
        )
    before = old.get("sources", [])
    left = [source for source in before if source not in given] if given else []
    if left and not add and not overwrite:
        raise GPTError(f"index {name} also contains {', '.join(left[:3])}: --add keeps it, --overwrite removes it")
    sources = [*before, *(s for s in given if s not in before)] if add or not given else given
    return sources, bool(changed) or (overwrite and not old)


def check_texts(name: str, index: Files, items: Sequence[Item]) -> None:
    """Raises GPTError where a `$variable` shares no text with what is indexed of it: it is another collection."""
    stored, texts = documents_of(index), {}
    for item in items:
        if item.text is not None:
            texts.setdefault(item.source.partition("[")[0], set()).add(hash_of(item))
    for variable, hashes in texts.items():
        stored_hashes = {row[0] for source, row in stored.items() if source.partition("[")[0] == variable}
        if stored_hashes and stored_hashes.isdisjoint(hashes):
            raise GPTError(f"index {name} contains other texts of {variable}: choose another name, or use --overwrite")


def begin(folder: Path, name: str, settings: dict, model, probe, sources: list[str], made: Provenance) -> None:
    """Write `index.json` before the work starts, so that a killed run can continue.

    What is in the folder already is kept if it has the same settings and embedder, else removed. Raises GPTError for
    an embedder that is not the one the index was made with, and for chunks longer than it reads.
    """
    keys = ("embedder", "chunk_tokens", "overlap")
    if settings["chunk_tokens"] > model.room:
        raise GPTError(
            f"--chunk-tokens {settings['chunk_tokens']} is more than {model.name} reads: at most {model.room}"
        )
    about = Files(folder).about
    if about and not same(probe, about) and not folder.name.startswith(".new-"):
        raise GPTError(
            f"index {name} was made with another {settings['embedder']} than the one that is here now: "
            "their vectors cannot be compared; --overwrite rebuilds it"
        )
    if not same(probe, about) or any(about[key] != settings[key] for key in keys):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        about = {"probe": [round(float(x), 6) for x in probe], "dimensions": len(probe)}
    Files(folder).write_about(
        {
            **about,
            **{key: settings[key] for key in (*keys, "embedder_mark")},
            "sources": sources,
            "complete": False,
            "cell_id": made.cell_id,
            "requested": made.requested,
        }
    )


def run(index: Files, items, model, report: Changes, add: bool, progress: Callable | None) -> None:
    """The indexing run as a job beside the others of this kernel; an interrupt ends it and keeps what was done."""
    stopping = threading.Event()
    latest: list[tuple[str, int, int]] = []

    def job() -> Generator[None, None, None]:
        for state in update(index, items, model, report, stopping.is_set, add):
            latest[:] = [state]
            yield

    def tick() -> None:
        if progress and latest:
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


def search(session, options: Search) -> list:
    """The `k` chunks of an index nearest to `query`, best first: `.text`, `.source`, `.page`, `.score`."""
    how = {name: getattr(options, name) for name in Retrieval.model_fields if name != "k"}
    return session.indexes[options.index].search(options.query, options.k, **how)


def index_report(kept) -> Report:
    """An index as it is now, and what the run did to it."""
    counts, settings, report = kept.files.counts(), kept.about, kept.report
    title = (
        f"{kept.name}: {several(counts['documents'], 'document')}, {several(counts['chunks'], 'chunk')} of at most "
        f"{settings['chunk_tokens']} tokens, embedded with {settings['embedder']} ({settings['dimensions']} dimensions)"
    )
    done = {
        "added": report.added,
        "changed": report.changed,
        "removed": report.removed,
        "skipped": [f"{name}: {why}" if why.startswith(".") else f"{name} {why}" for name, why in report.skipped],
        "duplicates": [f"{name} is {other}" for name, other in report.duplicates],
        "notes": [f"{name}: {note}" for name, note in report.notes],
    }
    done = {what: names for what, names in done.items() if names}
    lines = [f"{what}: {len(names):,} ({few(names)})" for what, names in done.items()]
    lines += [f"unchanged: {report.unchanged:,}"] if report.unchanged else []
    if counts["pending"]:
        lines.append(f"{counts['pending']:,} chunks are not embedded yet: run the cell again to continue")
    work = [Varies(report.embedded), " chunks embedded in ", Varies(report.seconds, 1), " s"]
    return Report(
        title,
        [*(Paragraph(Varies(line)) for line in lines), Paragraph(work)],
        {"view": "index", "name": kept.name, "embedder": settings["embedder"], "documents": counts["documents"]},
        {"done": done, "seconds": report.seconds},
    )


def few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f", and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
