"""What the attacks share: their options, a shell to run cells in on a store of its own, and a judgement of each cell.
Beside `fuzz.py`, `corrupt.py`, `disk.py` and `soak.py`.

A cell may succeed, or fail with one line of ours (GPTError, at most 300 characters) or of IPython's own (UsageError).
Any other exception is *raw*.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

LONGEST = 300  # characters of an error
SLOWEST = 10.0  # seconds of a cell


@dataclass(frozen=True)
class Cell:
    """A cell that was run: its source, how long it took, and what it raised."""

    source: str
    seconds: float
    error: BaseException | None

    @property
    def fault(self) -> str | None:
        """What is wrong with how it ended; None for nothing."""
        from IPython.core.error import UsageError

        from jupyter_gpt.errors import GPTError

        if isinstance(self.error, GPTError) and (len(str(self.error)) > LONGEST or "\n" in str(self.error)):
            return "long"
        if self.error is not None and not isinstance(self.error, GPTError | UsageError):
            return "raw"
        return "slow" if self.seconds > SLOWEST else None


def shell():
    """An IPython shell with the magics loaded, which shows nothing."""
    from IPython.core.interactiveshell import InteractiveShell

    ip = InteractiveShell.instance()
    ip.showtraceback = ip.showsyntaxerror = lambda *_, **__: None
    ip.display_pub.publish = lambda *_, **__: None
    ip.displayhook.write_format_data = lambda *_: None
    ip.history_manager.enabled = False
    ip.run_line_magic("load_ext", "jupyter_gpt")
    return ip


def options(about: str, **defaults: object) -> argparse.Namespace:
    """The options of the command line, with `--seed`; each is of the type of its default."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {**defaults, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


@contextmanager
def store() -> Iterator[tuple]:
    """A shell on a store with one of everything, and the folder of both."""
    import corrupt

    with tempfile.TemporaryDirectory() as folder:
        for name in ("HOME", "CACHE", "CONFIG"):
            os.environ[f"JUPYTER_GPT_{name}"] = f"{folder}/{name.lower()}"
        ip = shell()
        corrupt.build(ip)
        yield ip, Path(folder)


def run(ip, source: str) -> Cell:
    began = time.monotonic()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = ip.run_cell(source, store_history=False)
    return Cell(source, time.monotonic() - began, result.error_before_exec or result.error_in_exec)


def place(error: BaseException) -> str:
    """Where an error was raised, and the last line of ours on the way there."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "jupyter_gpt" in frame.filename]
    shown = dict.fromkeys(f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in [*ours[-1:], *frames[-1:]])
    return f"{type(error).__name__} at {' > '.join(shown)}: {str(error)[:120]!r}"
