"""What an indexing run did, and the indexes there are, as tables."""

from __future__ import annotations

import time

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.memory import amount
from jupyter_gpt.notebook.views.bundle import Bundle, about, escape, quoted
from jupyter_gpt.notebook.views.table import html_table, text_table

HEADER = ("index", "documents", "chunks", "embedder", "chunk", "size", "updated")
NAMED = 5  # documents named of each kind


def index_bundle(kept) -> Bundle:
    """An index as it stands, and what the run that was asked for did to it."""
    counts, settings, report = kept.files.counts(), kept.about, kept.report
    title = (
        f"{kept.name}: {several(counts['documents'], 'document')}, {several(counts['chunks'], 'chunk')} of at most "
        f"{settings['chunk_tokens']} tokens, embedded with {settings['embedder']} ({settings['dimensions']} dimensions)"
    )
    done = [
        (what, names)
        for what, names in (
            ("added", report.added),
            ("changed", report.changed),
            ("removed", report.removed),
            (
                "passed over",
                [f"{name} {why}" if not why.startswith(".") else f"{name}: {why}" for name, why in report.skipped],
            ),
            ("the same as another", [f"{name} is {other}" for name, other in report.duplicates]),
            ("note", [f"{name}: {note}" for name, note in report.notes]),
        )
        if names
    ]
    lines = [f"{what}: {len(names):,} ({few(names)})" for what, names in done]
    lines += [f"unchanged: {report.unchanged:,}"] if report.unchanged else []
    if counts["pending"]:
        lines.append(f"{counts['pending']:,} chunks still wait for their vectors: run the cell again to go on")
    work = f"{about(report.embedded, 0)} chunks embedded in {about(report.seconds, 1)} s"
    text = "\n".join([title, *map(quoted, lines), work])
    html = f"<p><b>{escape(title)}</b><br>{'<br>'.join(escape(line) for line in [*map(quoted, lines), work])}</p>"
    data = {"view": "index", "name": kept.name, "embedder": settings["embedder"], "documents": counts["documents"]}
    return Bundle(text, html, data, {"done": {what: names for what, names in done}, "seconds": report.seconds})


def several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f", and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def indexes_bundle(indexes) -> Bundle:
    """One row an index: its size, its age, its embedder. One that cannot be read is listed as damaged."""
    rows = []
    for name in indexes:
        try:
            kept = indexes[name]
            counts, settings = kept.files.counts(), kept.about
            chunks = f"{counts['chunks']:,}" + (f" ({counts['pending']:,} to come)" if counts["pending"] else "")
            rows.append(
                (
                    name,
                    f"{counts['documents']:,}",
                    chunks,
                    settings["embedder"],
                    f"{settings['chunk_tokens']} tokens",
                    quoted(amount(kept.files.size)),
                    quoted(age(settings["updated"])),
                )
            )
        except (GPTError, KeyError):
            rows.append((name, "", "", "damaged", "", "", ""))
    data = {"view": "indexes", "indexes": [row[0] for row in rows]}
    if not rows:
        text = "no indexes yet: %gpt index NAME SOURCE … makes one"
        return Bundle(text, f"<p>{text}</p>", data)
    return Bundle(text_table(HEADER, rows, "lrrllrl"), html_table(HEADER, rows, "lrrllrl"), data)


def age(updated: float) -> str:
    """`5 minutes ago`."""
    seconds = max(0, int(time.time() - updated))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return f"{several(seconds // size, unit)} ago"
    return "just now"
