"""The one exception a user's mistake raises: a single clear line in the notebook, yet a real error.

IPython asks an exception for `_render_traceback_`; answering with one line keeps the cell readable, while nbclient,
nbval and papermill still see a failed cell (IPython's own UsageError would pass there).
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

LONGEST = 300  # characters of a message
QUOTED = 80  # of a word in it that is longer than twice as much
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # control characters, lone surrogates
ALLOCATION_ERRORS = (  # of torch and oneDNN
    "can't allocate memory",
    "std::bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)


class GPTError(Exception):
    """A user's mistake: what was wrong and what would be right, in one line of at most `LONGEST` characters."""

    def __init__(self, message: object = ""):
        text = UNPRINTABLE.sub(" ", str(message))
        if len(text) > LONGEST:
            text = " ".join(word if len(word) <= 2 * QUOTED else f"{word[:QUOTED]}…" for word in text.split())
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")

    def _render_traceback_(self) -> list[str]:
        return [f"GPTError: {self}"]


@contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Raises GPTError, "`what` is damaged (why): `remedy`", whatever a file of any content makes of the libraries that
    read it."""
    try:
        yield
    except (GPTError, MemoryError):
        raise
    except Exception as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise GPTError(f"{what} is damaged ({why[0][:QUOTED]}): {remedy}") from error


class OutOfMemory(GPTError):
    """Not enough memory for the request; what it had taken is freed."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch and oneDNN tell it of the CPU in a plain RuntimeError."""
    if isinstance(error, RuntimeError):  # torch.OutOfMemoryError is one
        return type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in ALLOCATION_ERRORS)
    return isinstance(error, MemoryError | OutOfMemory) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def nearest(word: str, known: Iterable[str]) -> str:
    """The tail of an error message that names the likeliest intended word: ` (did you mean X?)`.

    Names all of `known` when none is near and there are few; the empty string when nothing helps.
    """
    known, word = sorted(known), word[:QUOTED]  # matching takes the square of the length
    plain = {name.casefold(): name for name in reversed(known)}
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    close = [plain[name] for name in difflib.get_close_matches(word.casefold(), plain, n=1, cutoff=0.5)] or close
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (there is {', '.join(known)})" if 0 < len(known) <= 12 else ""


# How options are spelled in messages: as a magic's flags, or as the keywords of a Python function.
_in_magic: ContextVar[bool] = ContextVar("in_magic", default=False)
FLAG = re.compile(r"(%{1,2}\w[^:;,]*)|(?<![\w-])--([a-z][a-z-]*)(?: (-?[\d.]+(?:e-?\d+)?|'[^']*')(?![\w.]))?")


def is_lost_rank(error: BaseException) -> bool:
    """Whether an error of torch.distributed says no more than that another process of a run is gone."""
    kinds, said = {kind.__name__ for kind in type(error).__mro__}, str(error).lower()
    return "DistError" in kinds or ("RuntimeError" in kinds and any(name in said for name in ("gloo", "nccl")))


@contextmanager
def in_magic() -> Iterator[None]:
    """In here messages name options as they are typed in a magic: `--max-tokens`."""
    token = _in_magic.set(True)
    try:
        yield
    finally:
        _in_magic.reset(token)


def as_keywords(message: str) -> str:
    """A message with `--max-tokens 0` as `max_tokens=0`; what stands in a magic's line stays as it is."""

    def spelled(found: re.Match) -> str:
        return found[1] or f"{found[2].replace('-', '_')}={found[3] or ''}"

    return FLAG.sub(spelled, message)


@contextmanager
def keyword_messages() -> Iterator[None]:
    """An error raised in here names options as Python's keywords, unless a magic called."""
    try:
        yield
    except GPTError as error:
        if not _in_magic.get() and error.args and isinstance(error.args[0], str):
            error.args = (as_keywords(error.args[0]), *error.args[1:])
        raise
