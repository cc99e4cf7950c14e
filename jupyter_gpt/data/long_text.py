"""A document that is too long for memory: of a str as much as preparing data needs, read from its file each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property


class LongText:
    """The characters from `begin` to `end` of the text that `read` gives in chunks."""

    def __init__(self, read: Callable[[], Iterator[str]], begin: int = 0, end: int | None = None):
        self.read, self.begin, self.given = read, begin, end

    @cached_property
    def end(self) -> int:
        return sum(map(len, self.read())) if self.given is None else self.given

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, part: slice) -> LongText:
        begin, end, _ = part.indices(len(self))
        return LongText(self.read, self.begin + begin, self.begin + max(begin, end))

    def isspace(self) -> bool:
        return len(self) > 0 and all(part.isspace() for part in self.parts())

    def parts(self) -> Iterator[str]:
        """Its text in chunks; none is empty."""
        at = 0
        for chunk in self.read():
            if self.given is not None and at >= self.given:
                return
            part = chunk[max(0, self.begin - at) : None if self.given is None else self.given - at]
            at += len(chunk)
            if part:
                yield part


def parts(text: str | LongText) -> Iterator[str]:
    """A text in chunks; a str is one."""
    return iter([text]) if isinstance(text, str) else text.parts()
