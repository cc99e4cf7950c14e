"""The worker: one long-lived thread per device that runs all torch work, a generator at a time.

A job is a generator. The worker asks each living job for its next piece in turn, so a prompt is answered between two
micro-batches of a run, weights are never read half-updated, and compiled CUDA graphs never change threads. What a user
wrote (a reward, a judge, a tool) is called on the waiting main thread, where the interrupt button can reach it: the job
yields a `Call` and is passed over until it was made. Where nobody waits, it is made on a thread of its own.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.imports import heed_setting

PATIENCE = 0.5  # seconds a call stays for somebody to wait for its job
NAP = 0.002  # seconds between two looks at jobs that all wait for a call
BUSY = 5.0  # seconds without a yield after which a message is printed, and nobody waits for an abandoned job
STUCK = 60.0  # and after which nobody waits for any other job


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


class Job:
    """A generator on its way; `done` is set when it ended, `error` holds what ended it, `result` what it returned."""

    def __init__(self, generator: Generator[Any, Any, Any], worker: Worker | None = None):
        self.generator, self.worker = generator, worker
        self.left = False  # whether a second interrupt has ended the waiting for it
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.result: Any = None
        self.call: Call | None = None  # what the generator waits for
        self.taken, self.called = False, 0.0  # whether somebody makes that call, and since when it is there
        self.changed = threading.Condition()
        self.waiting = 0  # threads in `wait`

    def wait(
        self, tick: Callable[[], None] | None = None, interrupted: Callable[[], None] | None = None, grace: float = 0.0
    ):
        """Block until the job ends, calling `tick` about ten times a second; returns its result or raises its error.

        Makes the calls that the job asks for. The first KeyboardInterrupt, in such a call or not, calls `interrupted`
        and goes on waiting for a graceful end. So does the second where there is `grace`, seconds that the job then has
        left; after them, or at the next, it is raised. The first is raised too while the worker is in a long step of
        another job. Raises GPTError when that job was left, or takes too long.
        """
        interrupts, until, notified = 0, math.inf, False
        self.waiting += 1
        try:
            while not self.done.is_set():
                try:
                    if time.monotonic() > until:
                        raise KeyboardInterrupt
                    self.rest(0.1 if tick or interrupts > 1 else 1.0)
                    notified = self.look_at_worker(notified)
                    broken = self.make_call()
                    if tick:
                        tick()
                    if broken:
                        raise broken
                except KeyboardInterrupt:
                    self.leave_call()
                    interrupts += 1
                    if interrupted is None or interrupts > (2 if grace else 1):
                        self.left = True
                        raise
                    if interrupts == 2:
                        until = time.monotonic() + grace
                    interrupted()
                    other, seconds = self.worker.step() if self.worker else (self, 0.0)
                    if other is not self and seconds > BUSY:
                        raise
                except GPTError:
                    if interrupted:
                        interrupted()
                    raise
        finally:
            self.waiting -= 1
        if self.error is not None:
            raise self.error
        return self.result

    def look_at_worker(self, notified: bool) -> bool:
        """Print once that another job keeps the worker busy. Raises GPTError if waiting is of no use."""
        other, seconds = self.worker.step() if self.worker else (self, 0.0)
        if self.worker is None or other is None or other is self or seconds < BUSY:
            return notified
        where = f"the kernel's worker has been in one step of another job for {seconds:.0f} s ({self.worker.place()})"
        if other.left or seconds > STUCK:
            raise GPTError(f"{where}: wait for it to end, or restart the kernel; runs go on with %gpt resume")
        if not notified:
            print(f"Waiting: {where}. Interrupt to stop waiting.", file=sys.stderr, flush=True)
        return True

    def rest(self, seconds: float) -> None:
        """Until the job has ended or asks for a call, at most so long."""
        with self.changed:
            if not self.done.is_set() and (self.call is None or self.taken):
                self.changed.wait(seconds)

    def make_call(self) -> KeyboardInterrupt | None:
        """Make the call that the job waits for, if there is one; the interrupt that broke it off, if one did."""
        call = self.take()
        if call is None:
            return None
        call.make()
        return call.error if isinstance(call.error, KeyboardInterrupt) else None

    def take(self) -> Call | None:
        """The call that nobody has taken on yet."""
        with self.changed:
            if self.call is None or self.taken:
                return None
            self.taken = True
            return self.call

    def leave_call(self) -> None:
        """After an interrupt: a call that was taken on and not begun is there to take again."""
        with self.changed:
            if self.call is not None and not self.call.done.is_set():
                self.taken = False

    def ask(self, call: Call) -> None:
        """Have a call made by the thread that waits."""
        with self.changed:
            self.call, self.taken, self.called = call, False, time.monotonic()
            self.changed.notify_all()

    def end(self) -> None:
        """Wake the threads that wait: it is over."""
        with self.changed:
            self.done.set()
            self.changed.notify_all()

    def is_waiting(self) -> bool:
        """Whether the job waits for a call; where nobody else makes it, a thread of its own does."""
        if self.call is None or self.call.done.is_set():
            return False
        if not self.waiting and time.monotonic() - self.called > PATIENCE and (call := self.take()):
            threading.Thread(target=call.make, name="jupyter_gpt-call", daemon=True).start()
        return True


class Worker(threading.Thread):
    """Runs jobs round-robin. A daemon: a kernel that is shut down does not wait for it."""

    def __init__(self, device: str):
        super().__init__(name=f"jupyter_gpt-{device}", daemon=True)
        self.jobs: list[Job] = []
        self.current: tuple[Job | None, float] = (None, 0.0)  # whose step it is in, and since when
        self.wake = threading.Condition()
        self.start()

    def submit(self, generator: Generator[Any, Any, Any]) -> Job:
        if "torch" in sys.modules:
            from jupyter_gpt.nn.devices import let_go_of_threads

            heed_setting()
            let_go_of_threads()  # the worker has use for the cores
        job = Job(generator, self)
        with self.wake:
            self.jobs.append(job)
            self.wake.notify()
        return job

    def step(self) -> tuple[Job | None, float]:
        """The job whose step it is in, and for how many seconds."""
        job, began = self.current
        return job, time.monotonic() - began if job else 0.0

    def place(self) -> str:
        """The line it is in."""
        frame = sys._current_frames().get(self.ident or 0)
        return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}" if frame else "ended"

    def run(self) -> None:
        while True:
            with self.wake:
                while not self.jobs:
                    self.wake.wait()
                turn = list(self.jobs)
            waiting = [job.is_waiting() for job in turn]
            if all(waiting):
                time.sleep(NAP)
            for job, waits in zip(turn, waiting, strict=True):
                if waits:
                    continue
                self.current = (job, time.monotonic())
                going = advance(job)
                self.current = (None, 0.0)
                if not going:
                    with self.wake:
                        self.jobs.remove(job)
                    job.end()


def advance(job: Job) -> bool:
    """Ask a job for its next piece; False when it has ended, by itself or by an error."""
    call, job.call = job.call, None
    try:
        if call is not None and call.error is not None:
            piece = job.generator.throw(call.error)
        else:
            piece = job.generator.send(call.result if call else None)
        if isinstance(piece, Call):
            job.ask(piece)
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


def on_worker(device: str, function: Callable) -> Any:
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


def aside(generator: Generator[Any, Any, Any]) -> Job:
    """A job on a thread of its own."""
    job = Job(generator)

    def run() -> None:
        while advance(job):
            pass
        job.end()

    threading.Thread(target=run, name="jupyter_gpt-request", daemon=True).start()
    return job
