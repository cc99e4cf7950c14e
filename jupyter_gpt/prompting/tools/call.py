"""One call of a tool, contained: whatever the function does, the model is told a short text and work goes on.

A function of the user runs on the waiting main thread, so that the interrupt button breaks it. After its
seconds are over it is interrupted in the same way (a signal to the main thread: it wakes `time.sleep` and
blocking reads; only C code that never looks up cannot be stopped so). What it prints is captured, and kept up
to a length. What it raises becomes the result; an interrupt by hand is not the tool's affair and goes on.
"""

from __future__ import annotations

import contextlib
import io
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from jupyter_gpt.prompting.tools.tool import Tool, as_text, cut

PRINTED = 2000  # characters of what a tool prints that are kept


@dataclass(frozen=True)
class Result:
    """What a call came to.

    text: what the model is told.  ok: whether the tool did its work.  printed: what it wrote to stdout and
    stderr, cut.  error: the traceback of what a user's function raised, cut, for
    whoever reads the trace.
    """

    text: str
    ok: bool = True
    seconds: float = 0.0
    printed: str = ""
    error: str = ""


def call(tool: Tool, arguments: dict) -> Result:
    """Call `tool` with checked `arguments`. Raises KeyboardInterrupt when interrupted by hand, nothing else."""
    began, printed, error = time.perf_counter(), Printed(PRINTED), ""

    def work() -> str:
        return as_text(tool.function(**arguments))

    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            text, ok = within(tool.seconds, work), True
    except KeyboardInterrupt:
        raise
    except Late:
        text, ok = f"Error: {tool.name} took longer than {tool.seconds:g} s and was stopped", False
    except BaseException as raised:  # also SystemExit: a tool does not end the kernel
        said = str(raised) if isinstance(raised, Failed) else f"{type(raised).__name__}: {raised}".rstrip(": ")
        text, ok = f"Error: {said}", False
        own = getattr(tool.function, "__module__", "").startswith("jupyter_gpt.")  # its line says all there is to say
        error = "" if own else cut("".join(traceback.format_exception(raised)[-8:]), 4000)
    if printed.text and text == "done":
        text = printed.text
    seconds = time.perf_counter() - began
    return Result(cut(text, tool.largest), ok, seconds, printed.text, error)


class Late(Exception):
    """The time is over."""


class Failed(Exception):
    """What a tool raises to say all of what went wrong itself, in words meant for the model."""


class Printed(io.TextIOBase):
    """A stdout that keeps the first `most` characters and counts the rest."""

    def __init__(self, most: int):
        self.most, self.kept, self.size, self.left = most, [], 0, 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        room = max(0, self.most - self.size)
        if room and text:
            self.kept.append(text[:room])
            self.size += len(self.kept[-1])
        self.left += len(text) - min(len(text), room)
        return len(text)

    @property
    def text(self) -> str:
        found = "".join(self.kept)
        return found + (f" … ({self.left:,} more characters)" if self.left else "")


def within(seconds: float, function: Callable):
    """What `function()` returns, or Late when that takes too long; whatever it raises is raised."""
    if threading.current_thread() is not threading.main_thread():
        return aside(seconds, function)
    late, over, lock = threading.Event(), threading.Event(), threading.Lock()

    def ring() -> None:
        while True:
            with lock:  # never after the function has returned: that would interrupt somebody else
                if over.is_set():
                    return
                late.set()
                interrupt()
            if over.wait(1.0):  # a function that catches KeyboardInterrupt is told again
                return

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    try:
        timer.start()
        result = function()
        with lock:
            over.set()
        if late.is_set():
            time.sleep(1.0)  # the signal is on its way; it ends this sleep
        return result
    except KeyboardInterrupt:
        if late.is_set():
            raise Late from None
        raise
    finally:
        over.set()
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    """As the interrupt button does, to the main thread."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def aside(seconds: float, function: Callable):
    """The same on a thread of its own, for whoever is not on the main thread, and for what no interrupt
    reaches: when it is late it is left behind.
    """
    found: list = []

    def run() -> None:
        try:
            found.append((function(), None))
        except BaseException as error:  # handed to whoever waits
            found.append((None, error))

    thread = threading.Thread(target=run, name="jupyter_gpt-tool", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise Late
    result, error = found[0]
    if error is not None:
        raise error
    return result
