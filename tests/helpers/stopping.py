"""Stopping a run at a certain step, and interrupting a wait. A thread that polls for the step comes too late on a busy
machine.
"""

import os
import signal

from jupyter_gpt.runs.control import Control
from jupyter_gpt.runs.events import Step


class StopAt(Control):
    """Stops the run right after a step."""

    def __init__(self, step):
        self.step = step

    def look(self, run, event):
        if isinstance(event, Step) and event.step >= self.step:
            run.stopping.set()


def stop_at(run, step):
    """Stop a run that has just begun in the background, and wait for its end."""
    run.control, before = StopAt(step), run.control
    run.wait()
    run.control = before  # for the run that goes on


def interrupt_soon():
    """Interrupt this process, as ■ does, half a second from now."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
