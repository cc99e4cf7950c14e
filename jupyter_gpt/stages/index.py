"""`%gpt index`, `indexes`, `search`: documents made ready to be found, and found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.device_memory import amount
from jupyter_gpt.options import Count, option
from jupyter_gpt.report.parts import Paragraph, Table, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.retrieval import indexes
from jupyter_gpt.retrieval.chunk import OVERLAP, TOKENS
from jupyter_gpt.retrieval.document_sources import SUPPORTED
from jupyter_gpt.retrieval.indexes import Retrieval
from jupyter_gpt.stages.stage import Bound

HEADER = ("index", "documents", "chunks", "embedder", "chunk", "size", "updated")
NAMED = 5  # documents named of each kind


class Index(Bound):
    """make documents ready to be searched, or bring an index up to date

    Cuts documents into chunks, embeds them, and keeps both under .jupyter_gpt/indexes/NAME, a folder that may be moved.
    Run again, only what is new or changed is embedded, and what is gone from its sources leaves the index; without
    sources it looks at those it has. What cannot be read is passed over and named. ■ stops it and keeps what was done;
    the next run goes on there.
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
        f"files, globs, folders ({SUPPORTED}), addresses, and $variables that hold texts",
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
    chunk_tokens: Count | None = option(
        None, f"tokens of a chunk at most, counted by the embedder (default: {TOKENS})", "N"
    )
    overlap: float | None = option(
        None, f"share of a chunk that the next repeats, or how many tokens (default: {OVERLAP})", "SHARE"
    )
    add: bool = option(False, "keep what the index holds besides these sources")
    overwrite: bool = option(False, "let go of sources not named here; make the index anew where settings differ")
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


def index(session, options: Index):
    """Make an index or bring it up to date. Ctrl-C ends the run and keeps what was done; the next goes on from there.

    Raises GPTError, one line, for a source that is not there, when nothing can be indexed, and for an index of other
    settings or of another embedder.
    """
    chosen = options.as_dict()
    chosen.pop("out")
    return indexes.index(session, chosen.pop("name"), chosen.pop("sources"), **chosen)


def search(session, options: Search) -> list:
    """The `k` chunks of an index nearest to `query`, best first: `.text`, `.source`, `.page`, `.score`."""
    how = {name: getattr(options, name) for name in Retrieval.model_fields if name != "k"}
    return session.indexes[options.index].search(options.query, options.k, **how)


def index_report(kept) -> Report:
    """An index as it stands, and what the run that was asked for did to it."""
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


def several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f", and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


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
