"""A user's own function, called from the middle of a job: where, and what an interrupt does to it.

A job yields a `Call`; the main thread, which waits for the job, makes it, so that the notebook's stop button reaches
the function as it would reach it in a cell of its own. Its answer comes back as the value of the `yield`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Call:
    """A request to have `function()` called; `done` is set when it has returned or raised."""

    def __init__(self, function: Callable[[], object]):
        self.function = function
        self.done = threading.Event()
        self.result: object = None
        self.error: BaseException | None = None

    def make(self) -> None:
        """Call it, and keep what it returned or raised, its traceback with it."""
        try:
            self.result = self.function()
        except BaseException as error:  # an interrupt too: whoever yielded the call shall know
            self.error = error
        finally:
            self.done.set()
