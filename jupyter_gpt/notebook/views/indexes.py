"""What an indexing run did, and the indexes there are, as tables."""

from __future__ import annotations

import time

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.memory import amount
from jupyter_gpt.report.parts import Paragraph, Table, Varies
from jupyter_gpt.report.report import Report

HEADER = ("index", "documents", "chunks", "embedder", "chunk", "size", "updated")
NAMED = 5  # documents named of each kind


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
