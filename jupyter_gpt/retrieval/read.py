"""Documents from files: text with marks for the page and the heading of each part.

A part that begins is parted from the one before by two blank lines, so that the chunker prefers to cut there. What
cannot be read is `Unreadable`, with the reason.
"""

from __future__ import annotations

import csv
import io
import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

LARGEST = 200_000_000  # bytes of a file; more is not one document
GAP = "\n\n\n"  # between parts
HIDDEN = {"script", "style", "noscript", "template", "svg", "head"}  # of a page
BLOCKS = {"p", "div", "section", "article", "table", "ul", "ol", "blockquote", "dl", "figure"}
ROWS = {"li", "tr", "br", "dt", "dd", "option"}
DEFINITION = re.compile(r"^(?:async[ \t]+)?(?:class|def)[ \t]+\w+", re.MULTILINE)
BULLET = re.compile(r"[-*•·–]\s|\d+[.)]\s|[#>|]")
ALONE = re.compile(r"(?:\A|\n[ \t]*\n)([^\n]{3,70}(?:\n[^\n]{2,70})?)(?=\n[ \t]*\n)")  # a line or two by themselves
CHAPTER = re.compile(r"(?:chapter|part|book|section|appendix)\s+[\dIVXLCivxlc]+\b", re.IGNORECASE)
RUNS_OVER = re.compile(r"[a-zà-ÿ][^.!?\n]{0,300}[.!?](?=\s|\Z)")  # the rest of a sentence at the top of a page
FULL = 45  # characters of a line that was broken because it was full


class Unreadable(Exception):
    """A document that cannot be indexed; the message follows its name."""


class Mark(NamedTuple):
    """From character `start` on, the text is on this page (None: it has none) and under this heading."""

    start: int
    page: int | None
    heading: str


@dataclass(frozen=True)
class Document:
    """A text and its marks, in order. `notes` say what of the document is not in the text."""

    text: str
    marks: tuple[Mark, ...] = ()
    notes: tuple[str, ...] = ()

    def place(self, start: int) -> tuple[int | None, str]:
        """Page and heading of the character at `start`."""
        at = bisect_right(self.marks, start, key=lambda mark: mark.start) - 1
        return (self.marks[at].page, self.marks[at].heading) if at >= 0 else (None, "")


def read(path: Path) -> Document:
    """The document in a file, by its suffix; a suffix that is not known is read as plain text. Raises Unreadable."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise Unreadable(f"is {size / 1e6:,.0f} MB, more than {LARGEST // 10**6} MB: split it")
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    return parse(data, path.suffix.lower())


def parse(data: bytes, suffix: str) -> Document:
    """The document of these bytes. Raises Unreadable for one that is damaged, binary, empty or encrypted."""
    if suffix == ".pdf":
        document = pdf(data)
    else:
        document = KINDS.get(suffix, plain)(decoded(data))
    if not document.text.strip():
        raise Unreadable("is empty")
    return document


def decoded(data: bytes) -> str:
    """Bytes as text, its line ends as newlines. UTF-8, or UTF-16 where a byte order mark says so. Raises Unreadable."""
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in data[:1_000_000] and not wide:
        raise Unreadable("is a binary file")
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"is not UTF-8 (byte 0x{data[error.start]:02X} at byte {error.start:,}): save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def joined(parts: list[tuple[str, int | None, str]], notes: tuple[str, ...] = ()) -> Document:
    """A document of parts (text, page, heading); empty ones are left out."""
    text, marks, at = [], [], 0
    for part, page, heading in parts:
        if part.strip():
            marks.append(Mark(at, page, heading))
            text.append(part.strip("\n"))
            at += len(text[-1]) + len(GAP)
    return Document(GAP.join(text), tuple(marks), notes)


def unwrapped(text: str) -> str:
    """Paragraphs as one line each, where lines were broken only because they were full."""
    out: list[str] = []  # pieces: of each line what parts it from the one before, and the line
    length = 0  # of the paragraph so far
    for line in text.split("\n"):
        bare, before = line.strip(), out[-1] if out else ""
        if bare and before and length >= FULL and not BULLET.match(bare) and not line.startswith(("  ", "\t")):
            if re.search(r"[a-z]-\Z", "".join(out[-3:])):
                out[-1] = before[:-1]
            else:
                out.append(" ")
            out.append(bare)
            length += len(bare) + 1
        else:
            out += ["\n", line.rstrip()]
            length = len(out[-1])
    return "".join(out[1:])


def plain(text: str) -> Document:
    """Parted at its titles: short lines by themselves in capitals, and under them those that begin with `Chapter`."""
    parts, titles, part = [], {1: "", 2: ""}, 0
    for block in ALONE.finditer(text):
        title = " ".join(block[1].split())
        chapter = CHAPTER.match(title)
        capitals = title.upper() == title and sum(map(str.isalpha, title)) > 3 and "\n" not in block[1]
        if not chapter and not (capitals and title[0].isalnum() and title[-1] not in ",;:!"):
            continue
        before = text[part : block.start(1)]
        parts.append((unwrapped(before), None, path_of(titles)))
        if chapter:
            titles[2] = title
        elif CHAPTER.fullmatch(titles[2].rstrip(". ")) and before.strip() == titles[2]:
            titles[2] = f"{titles[2].rstrip('. ')}: {title}"  # the chapter's name beneath its number
        else:
            titles = {1: title, 2: ""}
        part = block.start(1)
    return joined([*parts, (unwrapped(text[part:]), None, path_of(titles))])


def path_of(titles: dict[int, str]) -> str:
    return " > ".join(title for title in titles.values() if title)


def sections(text: str, starts: list[tuple[int, str]]) -> Document:
    """A text parted at these characters, each part under its heading."""
    bounds = [(0, ""), *starts, (len(text), "")]
    return joined([(text[start:end], None, heading) for (start, heading), (end, _) in pairwise(bounds)])


def markdown(text: str) -> Document:
    """Parted at its headings; each part knows the path to it, `Leave > How to ask`."""
    lines = [0, *(end.end() for end in re.finditer("\n", text))]
    starts, path = [], []
    for level, title, line in headings(text):
        path = [*(step for step in path if step[0] < level), (level, title)]
        starts.append((lines[line], " > ".join(name for _, name in path)))
    return sections(text, starts)


def headings(text: str) -> list[tuple[int, str, int]]:
    """The headings of a Markdown text that are in no list or quotation: level, title, and number of their line."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])  # inline markup is not needed
    if text.startswith("---\n"):  # YAML front matter, whose last line would be underlined by its end
        parser.disable("lheading")
    tokens = parser.parse(text)
    return [
        (int(opening.tag[1]), " ".join(inline.content.split()), opening.map[0])
        for opening, inline in pairwise(tokens)
        if opening.type == "heading_open" and opening.level == 0 and inline.content
    ]


def html(text: str) -> Document:
    """What a reader of the page sees, without its scripts; headings as in markdown."""
    from bs4 import BeautifulSoup
    from bs4.element import CData, NavigableString, Tag

    pieces: list[str] = []
    waiting: list = [BeautifulSoup(text, "html.parser")]  # of the page from here on, the next last: pages nest deeply
    while waiting:
        node = waiting.pop()
        if not isinstance(node, Tag):
            if type(node) in (NavigableString, CData):
                pieces.append(re.sub(r"\s+", " ", node))
            elif type(node) is str:
                pieces.append(node)
        elif node.name in ("pre", "textarea"):
            pieces.append(f"\n\n{node.get_text()}\n\n")
        elif re.fullmatch("h[1-6]", node.name):
            pieces.append(f"\n\n{'#' * int(node.name[1])} {' '.join(node.get_text().split())}\n\n")
        elif node.name not in HIDDEN:
            block = node.name in BLOCKS
            pieces.append("\n\n" if block else "\n" if node.name in ROWS else "")
            waiting.append("\n\n" if block else " " if node.name in ("td", "th") else "")
            waiting += reversed(node.contents)
    lines = (line.strip() for line in "".join(pieces).split("\n"))
    return markdown(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip())


def python(text: str) -> Document:
    """Parted at its top-level classes and functions."""
    return sections(text, [(match.start(), match[0]) for match in DEFINITION.finditer(text)])


def notebook(text: str) -> Document:
    """The cells of a notebook, without their outputs; `page` is the number of the cell, from 1."""
    try:
        cells = json.loads(text)["cells"]
        sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable("is not a notebook of format 4") from error
    parts, heading = [], ""
    for number, (kind, source) in enumerate(sources, start=1):
        titles = headings(source) if kind == "markdown" else []
        heading = titles[0][1] if titles else heading
        parts.append((source, number, heading))
    return joined(parts)


def table(text: str) -> Document:
    """The rows of a CSV, each as `column: value` lines; `page` is the number of the row, from 1."""
    first = text.partition("\n")[0]
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count)))
    except csv.Error as error:
        raise Unreadable(f"is not CSV: {error}") from error
    head, *rows = rows or [[]]
    lines = (
        "\n".join(f"{name}: {value}" for name, value in zip(head, row, strict=False) if value.strip()) for row in rows
    )
    return joined([(line, number, "") for number, line in enumerate(lines, start=1)])


def jsonl(text: str) -> Document:
    """One part a line: its field `text`, or all its fields; `page` is the line."""
    parts = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                parts.append((row_text(json.loads(line)), number, ""))
            except ValueError as error:
                raise Unreadable(f"is not JSON in line {number}") from error
    return joined(parts)


def row_text(row: object) -> str:
    """A row of JSON as text: `field: value` lines, and of a chat `role: content`."""
    if isinstance(row, list):
        return "\n".join(filter(None, map(row_text, row)))
    if not isinstance(row, dict):
        return "" if row is None else str(row)
    if isinstance(row.get("text"), str):
        return row["text"]
    if {"role", "content"} <= row.keys():
        return f"{row['role']}: {row_text(row['content'])}"
    fields = ((key, row_text(value), isinstance(value, list | dict)) for key, value in row.items())
    return "\n".join(f"{key}:{chr(10) if deep else ' '}{value}" for key, value, deep in fields if value)


def pdf(data: bytes) -> Document:
    """The pages of a PDF, numbered from 1. Raises Unreadable when it is encrypted, damaged, or has images only."""
    import logging

    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # its warnings are noise: errors are raised below
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("is an encrypted PDF: save it without its password")
        pages = [page.extract_text() or "" for page in reader.pages]
    except DependencyError as error:
        raise Unreadable(
            "is an encrypted PDF: save it without its password (or, if it opens without one, pip install cryptography)"
        ) from error
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OSError) as error:
        raise Unreadable(
            f"is a damaged PDF: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    finally:
        logger.setLevel(level)
    bare = sum(not page.strip() for page in pages)
    if bare == len(pages):
        raise Unreadable("is a PDF of images, without text: it needs OCR first")
    notes = (f"{bare} of its {len(pages)} pages have no text",) if bare else ()
    pages = whole_sentences([unwrapped(page) for page in pages])
    return joined([(page, number, "") for number, page in enumerate(pages, start=1)], notes)


def whole_sentences(pages: list[str]) -> list[str]:
    """The pages, the rest of a sentence that runs over to the next one put back to where it begins."""
    out: list[str] = []
    for page in pages:
        rest = RUNS_OVER.match(page) if out and out[-1][-1:].isalpha() | out[-1].endswith((",", ";", "-")) else None
        if rest:
            out[-1] = out[-1][:-1] + rest[0] if out[-1].endswith("-") else f"{out[-1]} {rest[0]}"
            page = page[rest.end() :].lstrip()
        out.append(page.rstrip())
    return out


KINDS = {
    ".txt": plain,
    ".md": markdown,
    ".html": html,
    ".htm": html,
    ".py": python,
    ".ipynb": notebook,
    ".csv": table,
    ".jsonl": jsonl,
}
SUFFIXES = (*KINDS, ".pdf")
