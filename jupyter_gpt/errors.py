"""The one exception a user's mistake raises: a single clear line in the notebook, yet a real error.

IPython asks an exception for `_render_traceback_`; answering with one line keeps the cell readable,
while nbclient, nbval and papermill still see a failed cell (IPython's own UsageError would pass there).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GPTError(Exception):
    """A user's mistake: what was wrong and what would be right, in one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"GPTError: {self}"]


class OutOfMemory(GPTError):
    """There is no room for what was asked; what was taken for it has been given back."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The tail of an error message that names the likeliest intended word: ` (did you mean X?)`.

    Names all of `known` when none is near and there are few; the empty string when nothing helps.
    """
    known = sorted(known)
    plain = {name.casefold(): name for name in reversed(known)}
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    close = [plain[name] for name in difflib.get_close_matches(word.casefold(), plain, n=1, cutoff=0.5)] or close
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (there is {', '.join(known)})" if 0 < len(known) <= 12 else ""
