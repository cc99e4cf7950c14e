"""Many techniques at once with their calls batched: each runs on a thread of its own and waits when it prompts the
model; when all of them wait, their prompts go to the model together.

A technique is written as if it were alone. The model is prompted, and the user's functions are called, on the thread
that called `run_batched`, where an interrupt reaches them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.ask import INTERRUPTED, Send, Stopped

PATIENCE = 0.2  # seconds after which a thread checks whether its call can still be answered


class PendingCall(Future):
    """What a task waits for: answers of the model, or a function of the user's. `seconds`: its share of their time."""

    def __init__(self, prompts: Sequence = (), settings: dict | None = None, function: Callable | None = None):
        super().__init__()
        self.prompts, self.settings, self.function, self.seconds = prompts, settings or {}, function, 0.0


class Task(threading.Thread):
    """One running technique. `seconds`: its share of the time that the model took."""

    def __init__(self, number: int, work: Callable, calls: queue.SimpleQueue, closed: threading.Event):
        super().__init__(name=f"jupyter_gpt-technique-{number}", daemon=True)
        self.number, self.work, self.calls, self.closed = number, work, calls, closed
        self.result: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0

    def run(self) -> None:
        try:
            self.result = self.work(self.send, self.call_user)
        except BaseException as error:  # handed to whoever waits, traceback and all
            self.error = error
        self.calls.put((self, None))

    def wait_for(self, call: PendingCall) -> Any:
        self.calls.put((self, call))
        while not wait([call], PATIENCE).done:
            if self.closed.is_set():
                raise Stopped(INTERRUPTED)
        return call.result()

    def send(self, prompts, *, show=None, deadline=None, **settings):
        call = PendingCall(prompts, settings)
        completions = self.wait_for(call)
        self.seconds += call.seconds
        if show:
            show(completions)
        return completions

    def call_user(self, function: Callable, *args, **more):
        return self.wait_for(PendingCall(function=lambda: function(*args, **more)))


def run_batched(work: Sequence[Callable], send: Send, at_once: int = 32) -> Iterator[Task]:
    """Run all of `work`, each `f(send, call_user)`, at most `at_once` at a time; yields each task when it has ended.

    An interrupt ends the running ones with what they have, as `Stopped` does; the others are not started.
    """
    closed = threading.Event()
    try:
        yield from _run(work, send, at_once, closed)
    finally:
        closed.set()  # however it ended: no thread is left waiting


def _run(work: Sequence[Callable], send: Send, at_once: int, closed: threading.Event) -> Iterator[Task]:
    calls: queue.SimpleQueue = queue.SimpleQueue()
    waiting: list[tuple[Task, PendingCall]] = []
    started = running = 0
    stopping = False
    while True:
        while started < len(work) and running < at_once and not stopping:
            Task(started, work[started], calls, closed).start()
            started, running = started + 1, running + 1
        if not running:
            return
        while len(waiting) < running:  # until all of them wait, or one has ended
            task, call = calls.get()
            if call is None:
                running -= 1
                yield task
                break
            if call.function is None:
                waiting.append((task, call))
                continue
            try:
                call.set_result(call.function())
            except BaseException as error:  # raised in the technique that called it
                call.set_exception(error)
        if waiting and len(waiting) == running and (started == len(work) or running == at_once or stopping):
            batch, waiting = [call for _, call in sorted(waiting, key=lambda pair: pair[0].number)], []
            try:
                stopping = answer(batch, send, stopping)
            except KeyboardInterrupt:
                stopping = True
                for call in batch:
                    if not call.done():
                        call.set_exception(Stopped(INTERRUPTED))


def answer(calls: Sequence[PendingCall], send: Send, stopping: bool) -> bool:
    """Answer all calls, those with the same settings in one batch; whether an interrupt came."""
    groups: dict[str, list[PendingCall]] = {}
    for call in calls:
        groups.setdefault(repr(sorted(call.settings.items(), key=lambda item: item[0])), []).append(call)
    for group in groups.values():
        stopping = answer_batch(group, send, stopping)
    return stopping


def answer_batch(calls: Sequence[PendingCall], send: Send, stopping: bool) -> bool:
    """Answer calls together. If a prompt cannot be asked, each half is tried by itself, so that the error is raised
    where that prompt came from."""
    if stopping:
        for call in calls:
            call.set_exception(Stopped(INTERRUPTED))
        return True
    began = time.monotonic()
    try:
        completions = send([prompt for call in calls for prompt in call.prompts], **calls[0].settings)
    except GPTError as error:
        if len(calls) > 1:
            middle = len(calls) // 2
            return answer_batch(calls[middle:], send, answer_batch(calls[:middle], send, False))
        calls[0].set_exception(error)
        return False
    except Exception as error:  # a bug, or a server that is down: raised where each of them was sent
        for call in calls:
            call.set_exception(error)
        return False
    share = (time.monotonic() - began) / len(completions)
    rest = iter(completions)
    for call in calls:
        call.seconds = share * len(call.prompts)
        call.set_result([next(rest) for _ in call.prompts])
    return any(sample.interrupted for completion in completions for sample in completion.samples)
