"""Splits the line of a magic into words, and reads words as numbers.

Not `shlex`: it removes the quotes of `--json {"type": "object"}` and the backslashes of `C:\\texts\\*.txt`, and fails
at the apostrophe of `don't`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from keyword import iskeyword
from typing import NamedTuple

from jupyter_gpt.errors import GPTError

QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}  # the curly ones come with text pasted from a document
SCALES = {"": 0, "k": 3, "m": 6, "b": 9, "g": 9, "t": 12}
NUMBER = re.compile(r"([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)([kmbgt]?)", re.IGNORECASE)
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class Word(NamedTuple):
    """One word of a line; a quoted one is never an option nor a variable."""

    text: str
    quoted: bool


def split(line: str) -> list[Word]:
    """The words of a line, separated by white space.

    A quote groups at the start of a word and after `=`, nowhere else, so that apostrophes are letters; inside quotes a
    backslash is itself unless it stands before the closing quote. A word that begins with `{` or `[` (or has it after
    `=`) goes on to the matching bracket, its quotes kept: JSON needs no quoting. A quote or bracket never closed is a
    `GPTError`.
    """
    words, at = [], 0
    while at < len(line):
        if line[at].isspace():
            at += 1
            continue
        start, text = at, ""
        while at < len(line) and not line[at].isspace():
            opens = at == start or line[at - 1] == "="
            if opens and line[at] in QUOTES:
                piece, at = _quoted(line, at)
            elif opens and line[at] in "{[":
                end = _bracketed(line, at)
                piece, at = line[at:end], end
            else:
                piece, at = line[at], at + 1
            text += piece
        words.append(Word(text, line[start] in QUOTES))
    return words


def _quoted(line: str, at: int) -> tuple[str, int]:
    """The text between the quote at `at` and its partner, and where the line goes on."""
    close, text, here = QUOTES[line[at]], "", at + 1
    while here < len(line):
        if line[here] == "\\" and line[here + 1 : here + 2] == close:
            text, here = text + close, here + 2
        elif line[here] == close:
            return text, here + 1
        else:
            text, here = text + line[here], here + 1
    raise GPTError(f"the quote that opens {line[at:].strip()[:24]!r} is never closed: add a {close}")


def _bracketed(line: str, at: int) -> int:
    """Where the JSON (or the glob) that opens at `at` ends: just after its last closing bracket."""
    depth, here = 0, at
    while here < len(line):
        string = JSON_STRING.match(line, here)
        if string:
            here = string.end()
            continue
        depth += (line[here] in "{[") - (line[here] in "}]")
        here += 1
        if depth == 0:
            return here
    raise GPTError(f"the bracket that opens {line[at:].strip()[:24]!r} is never closed")


def whole(text: str) -> int:
    """A count: `1000`, `1_000_000`, `50k`, `1.5M`, `1e6`, `2B`. Raises ValueError with what is expected."""
    value = _scaled(text)
    if value is None or value < 0 or value != value.to_integral_value():
        raise ValueError("a whole number (such as 1000, 1_000_000, 50k, 1e6)")
    if value >= 2**63:
        raise ValueError("a whole number below 2 to the 63rd")
    return int(value)


def number(text: str) -> float:
    """A number: `0.02`, `3e-4`, `1.5`, `2k`. Raises ValueError with what is expected."""
    value = _scaled(text)
    if value is None:
        raise ValueError("a number (such as 0.02, 3e-4, 1.5)")
    return float(value)


def _scaled(text: str) -> Decimal | None:
    """The exact value of a number with an optional scale letter; None if it is not one."""
    match = NUMBER.fullmatch(text)
    return Decimal(match[1].replace("_", "")).scaleb(SCALES[match[2].lower()]) if match else None


def variable(text: str) -> str:
    """A name that Python can assign to. Raises ValueError with what is expected."""
    if not text.isidentifier() or iskeyword(text):
        raise ValueError("the name of a Python variable")
    return text


def spelled(text: str) -> str:
    r"""A text in which `\n` and `\t` stand for a new line and a tab. Raises ValueError with what is expected."""
    if not text:
        raise ValueError("some text")
    return text.replace("\\n", "\n").replace("\\t", "\t")


def on_or_off(text: str) -> bool:
    """`on` or `off`."""
    return text == "on"
