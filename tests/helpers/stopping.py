"""Stopping a run at a certain step, and interrupting a wait. A thread that polls for the step comes too late on a busy
machine.
"""

import signal
from contextlib import contextmanager
from unittest import mock

from helpers import TESTS
from jupyter_gpt.runs.control import Control
from jupyter_gpt.runs.events import Step


def stopped_at(step, train, *args, **options):
    """The run that `train` makes, stopped right after a step."""

    def look(self, run, event):
        if isinstance(event, Step) and event.step >= step:
            run.stopping.set()

    with mock.patch.object(Control, "look", look):
        run = train(*args, **options, background=True)
        run.wait()
    assert run.status == "stopped" and run.step == step
    return run


@contextmanager
def interrupted_soon():
    """Interrupt this process, as ■ does, half a second from now; none comes later than the end of the block."""
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def hold_at(monkeypatch, step):
    """Let runs in processes of their own wait after a step until they are asked to stop or to pause; see `holding`."""
    monkeypatch.syspath_prepend(TESTS / "helpers" / "holding")
    monkeypatch.setenv("HOLD_AT", str(step))
