"""One call of a tool, contained: whatever the function does, the model gets a short text and the technique continues.

A user's function runs on the waiting main thread, so that the interrupt button reaches it. When its time is over it is
interrupted in the same way (a signal to the main thread, which wakes `time.sleep` and blocking reads; only C code that
never checks signals cannot be stopped). What it prints is captured up to a length. What it raises becomes the result;
an interrupt by hand is passed on.
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
    """The outcome of a call.

    text: what the model is told.  ok: whether the tool succeeded.  printed: its stdout and stderr, cut.  error: the
    traceback of what a user's function raised, cut, for whoever reads the trace.
    """

    text: str
    ok: bool = True
    seconds: float = 0.0
    printed: str = ""
    error: str = ""


class Late(Exception):
    """The time is over."""


class Failed(Exception):
    """Raised by a tool with a complete message for the model."""


def call(tool: Tool, arguments: dict) -> Result:
    """Call `tool` with checked `arguments`. Raises KeyboardInterrupt if interrupted by hand, nothing else."""
    began, printed, error = time.perf_counter(), Printed(PRINTED), ""
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            text, ok = within(tool.seconds, lambda: as_text(tool.function(**arguments))), True
    except KeyboardInterrupt:
        raise
    except Late:
        text, ok = f"Error: {tool.name} took longer than {tool.seconds:g} s and was stopped", False
    except BaseException as raised:  # also SystemExit: a tool does not end the kernel
        message = str(raised) if isinstance(raised, Failed) else f"{type(raised).__name__}: {raised}".rstrip(": ")
        text, ok = f"Error: {message}", False
        if not getattr(tool.function, "__module__", "").startswith("jupyter_gpt."):
            error = cut("".join(traceback.format_exception(raised)[-8:]), 4000)
    if printed.text and text == "done":
        text = printed.text
    return Result(cut(text, tool.largest), ok, time.perf_counter() - began, printed.text, error)


class Printed(io.TextIOBase):
    """A stdout that keeps the first `most` characters and counts the rest."""

    def __init__(self, most: int):
        self.room, self.kept, self.left = most, "", 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.kept += text[: self.room]
        self.left += max(0, len(text) - self.room)
        self.room = max(0, self.room - len(text))
        return len(text)

    @property
    def text(self) -> str:
        return self.kept + (f" … ({self.left:,} more characters)" if self.left else "")


def within(seconds: float, function: Callable):
    """What `function()` returns; raises Late if that takes too long, and whatever it raises."""
    if threading.current_thread() is not threading.main_thread():
        return on_thread(seconds, function)
    late, over, lock = threading.Event(), threading.Event(), threading.Lock()

    def ring() -> None:
        while True:
            with lock:  # never after the function has returned: that would interrupt something else
                if over.is_set():
                    return
                late.set()
                interrupt()
            if over.wait(1.0):  # a function that catches KeyboardInterrupt is interrupted again
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
    """Interrupt the main thread as the interrupt button does."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def on_thread(seconds: float, function: Callable):
    """The same on a thread of its own, which is abandoned when it is late: for callers off the main thread, and for
    code that no interrupt reaches."""
    outcome: list = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:  # handed to whoever waits
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="jupyter_gpt-tool", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise Late
    result, error = outcome[0]
    if error is not None:
        raise error
    return result
