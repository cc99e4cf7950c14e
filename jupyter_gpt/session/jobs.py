"""The worker: one long-lived thread per device that runs all torch work, a generator at a time.

A job is a generator. The worker asks each living job for its next piece in turn, so a prompt is answered between two
micro-batches of a run, weights are never read half-updated, and compiled CUDA graphs never change threads. What a user
wrote (a reward, a judge, a tool) is called on the waiting main thread, where the interrupt button can reach it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator


class Job:
    """A generator on its way; `done` is set when it ended, `error` holds what ended it, `result` what it returned."""

    def __init__(self, generator: Iterator):
        self.generator = generator
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.result = None

    def wait(self, tick: Callable[[], None] | None = None, interrupted: Callable[[], None] | None = None):
        """Block until the job ends, calling `tick` about ten times a second; returns its result or raises its error.

        The first KeyboardInterrupt calls `interrupted` and goes on waiting for a graceful end; the second is raised.
        """
        asked = False
        while not self.done.is_set():
            try:
                self.done.wait(0.1 if tick else 1.0)
                if tick:
                    tick()
            except KeyboardInterrupt:
                if asked or interrupted is None:
                    raise
                asked = True
                interrupted()
        if self.error is not None:
            raise self.error
        return self.result


class Worker(threading.Thread):
    """Runs jobs round-robin. A daemon: a kernel that is shut down does not wait for it."""

    def __init__(self, device: str):
        super().__init__(name=f"jupyter_gpt-{device}", daemon=True)
        self.jobs: list[Job] = []
        self.wake = threading.Condition()
        self.start()

    def submit(self, generator: Iterator) -> Job:
        job = Job(generator)
        with self.wake:
            self.jobs.append(job)
            self.wake.notify()
        return job

    def run(self) -> None:
        while True:
            with self.wake:
                while not self.jobs:
                    self.wake.wait()
                turn = list(self.jobs)
            for job in turn:
                if not advance(job):
                    with self.wake:
                        self.jobs.remove(job)
                    job.done.set()


def advance(job: Job) -> bool:
    """Ask a job for its next piece; False when it has ended, by itself or by an error."""
    try:
        next(job.generator)
        return True
    except StopIteration as end:
        job.result = end.value
    except BaseException as error:  # handed to whoever waits, traceback and all
        job.error = error
    return False


_workers: dict[str, Worker] = {}
_starting = threading.Lock()


def worker(device: str) -> Worker:
    """The worker of a device, started at its first use."""
    with _starting:
        if device not in _workers:
            _workers[device] = Worker(device)
        return _workers[device]


def on_worker(device: str, function: Callable):
    """What `function()` returns, called on the worker of `device` between two pieces of its other jobs.

    Called at once from the worker itself. An interrupt stops the waiting, not the function.
    """
    here = worker(device)
    if threading.current_thread() is here:
        return function()

    def once():
        return function()
        yield

    return here.submit(once()).wait()
