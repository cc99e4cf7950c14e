"""The elements of a JSON list one by one, so that a list of any length is read in little memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NoReturn

from jupyter_gpt.errors import GPTError

BLANK = re.compile(r"[ \t\n\r]*")
AFTER = tuple(", ]\t\n\r")  # what follows a whole value


def elements(chunks: Iterator[str], name: str) -> Iterator[tuple[int, object]]:
    """Each element of the list whose text comes in chunks, with the line it begins at, from 1.

    Raises GPTError, with line and column, where the text is not a JSON list: the elements before it have been given.
    """
    text = Text(chunks, name)
    if text.next() != "[":
        text.fail("Expecting a list", text.at)
    text.at += 1
    more = text.next() != "]"
    while more:
        text.next()
        line = text.line_of(text.at)
        yield line, text.value()
        if text.next() not in (",", "]"):
            text.fail("Expecting ',' delimiter", text.at)
        more = text.text[text.at] == ","
        text.at += more
    text.at += 1
    if text.next():
        text.fail("Extra data", text.at)


class Text:
    """The part of a text that is looked at, `at` being the next character to read."""

    def __init__(self, chunks: Iterator[str], name: str):
        self.chunks, self.name, self.decoder = chunks, name, json.JSONDecoder()
        self.text, self.at = "", 0
        self.line, self.counted = 1, 0  # the line at the character `counted`
        self.before = 0  # characters of the first line that were dropped

    def next(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            self.at = BLANK.match(self.text, self.at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.read():
                return ""

    def value(self) -> object:
        """The JSON value that begins here."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if not self.read():
                    self.fail(error.msg, error.pos)
                continue
            if self.text[end : end + 1] not in AFTER and self.read():  # a number may go on
                continue
            self.at = end
            return value

    def read(self) -> bool:
        """Drops what was read and reads on, at least as much as is left; False at the end."""
        rest = self.text[self.at :]
        parts, size = [rest], 0
        while size <= len(rest) and (chunk := next(self.chunks, None)) is not None:
            parts.append(chunk)
            size += len(chunk)
        if not size:
            return False
        self.line_of(self.at)
        newline = self.text.rfind("\n", 0, self.at)
        self.before = self.at - newline - 1 if newline >= 0 else self.before + self.at
        self.text, self.at, self.counted = "".join(parts), 0, 0
        return True

    def line_of(self, at: int) -> int:
        self.line += self.text.count("\n", self.counted, at)
        self.counted = at
        return self.line

    def fail(self, why: str, at: int) -> NoReturn:
        newline = self.text.rfind("\n", 0, at)
        column = at - newline if newline >= 0 else self.before + at + 1
        raise GPTError(f"{self.name}, line {self.line_of(at)} is not JSON: {why} at column {column}")
