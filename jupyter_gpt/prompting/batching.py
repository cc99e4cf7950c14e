"""Many techniques at once, their calls batched: each runs on a thread of its own and waits where it asks, and when all
of
them wait, all that they ask goes to the model together.

A technique is written as if it were alone. The model is asked, and the user's functions are called, on the thread that
called `together`, where an interrupt reaches them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.ask import Enough, Send

STOPPED = "stopped by hand"
PATIENCE = 0.2  # seconds after which a thread looks whether anybody is still there to answer it


@dataclass(eq=False)
class Wish:
    """What a task waits for: an answer of the model, or a function of the user's."""

    prompts: Sequence = ()
    settings: dict = field(default_factory=dict)
    function: Callable | None = None
    result: object = None
    error: BaseException | None = None
    seconds: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)

    def answer(self, closed: threading.Event) -> object:
        while not self.done.wait(PATIENCE):
            if closed.is_set():
                raise Enough(STOPPED)
        if self.error is not None:
            raise self.error
        return self.result


class Task(threading.Thread):
    """One technique under way. `seconds`: its share of the time that the model took."""

    def __init__(self, number: int, work: Callable, wishes: queue.SimpleQueue, closed: threading.Event):
        super().__init__(name=f"jupyter_gpt-technique-{number}", daemon=True)
        self.number, self.work, self.wishes, self.closed = number, work, wishes, closed
        self.result: object = None
        self.error: BaseException | None = None
        self.seconds = 0.0

    def run(self) -> None:
        try:
            self.result = self.work(self.send, self.call)
        except BaseException as error:  # handed to whoever waits, traceback and all
            self.error = error
        self.wishes.put((self, None))

    def send(self, prompts, *, show=None, deadline=None, **settings):
        wish = Wish(prompts, settings)
        self.wishes.put((self, wish))
        found = wish.answer(self.closed)
        self.seconds += wish.seconds
        if show:
            show(found)
        return found

    def call(self, function: Callable, *args, **more):
        wish = Wish(function=lambda: function(*args, **more))
        self.wishes.put((self, wish))
        return wish.answer(self.closed)


def together(work: Sequence[Callable], send: Send, at_once: int = 32) -> Iterator[Task]:
    """Do all of `work`, each `f(send, call_user)`, at most `at_once` at a time; yields each task when it has ended.

    An interrupt ends those under way with what they have, as `Enough` does; those not begun are left out.
    """
    closed = threading.Event()
    try:
        yield from driven(work, send, at_once, closed)
    finally:
        closed.set()  # whatever ended it: no thread waits on for an answer


def driven(work: Sequence[Callable], send: Send, at_once: int, closed: threading.Event) -> Iterator[Task]:
    """The tasks as they end; starts new ones in their place, and asks for all of them when all of them wait."""
    wishes: queue.SimpleQueue = queue.SimpleQueue()
    waiting: list[tuple[Task, Wish]] = []
    begun = running = 0
    stopping = False
    while True:
        while begun < len(work) and running < at_once and not stopping:
            Task(begun, work[begun], wishes, closed).start()
            begun, running = begun + 1, running + 1
        if not running:
            return
        while len(waiting) < running:  # until all of them wait, or one has ended
            task, wish = wishes.get()
            if wish is None:
                running -= 1
                yield task
                break
            if wish.function is not None:
                fulfil(wish)
            else:
                waiting.append((task, wish))
        if waiting and len(waiting) == running and (begun == len(work) or running == at_once or stopping):
            asked, waiting = waiting, []
            try:
                stopping = put(asked, send, stopping)
            except KeyboardInterrupt:
                stopping = True
                for _, wish in asked:
                    if not wish.done.is_set():
                        wish.error = Enough(STOPPED)
                        wish.done.set()


def fulfil(wish: Wish) -> None:
    """Call a function of the user's; what it raises is for the technique that asked."""
    try:
        wish.result = wish.function()
    except BaseException as error:
        wish.error = error
    wish.done.set()


def put(asked: Sequence[tuple[Task, Wish]], send: Send, stopping: bool) -> bool:
    """Have all these prompts answered, those of the same settings in one batch; whether an interrupt came."""
    groups: dict[str, list[Wish]] = {}
    for _, wish in sorted(asked, key=lambda pair: pair[0].number):
        groups.setdefault(repr(sorted(wish.settings.items(), key=lambda item: item[0])), []).append(wish)
    for wishes in groups.values():
        stopping = batch(wishes, send, stopping)
    return stopping


def batch(wishes: Sequence[Wish], send: Send, stopping: bool) -> bool:
    """Have the prompts of these wishes answered together. Where one cannot be asked, each half is tried by itself, so
    that the error reaches the one who asked it."""
    if stopping:
        answer_all(wishes, Enough(STOPPED))
        return True
    began = time.monotonic()
    try:
        found = send([prompt for wish in wishes for prompt in wish.prompts], **wishes[0].settings)
    except GPTError as error:
        if len(wishes) == 1:
            answer_all(wishes, error)
            return False
        middle = len(wishes) // 2
        return batch(wishes[middle:], send, batch(wishes[:middle], send, False))
    except Exception as error:  # a bug, or a server that is down: raised where each of them asked
        answer_all(wishes, error)
        return False
    share = (time.monotonic() - began) / len(found)
    rest = iter(found)
    for wish in wishes:
        wish.result = [next(rest) for _ in wish.prompts]
        wish.seconds = share * len(wish.prompts)
        wish.done.set()
    return any(sample.interrupted for completion in found for sample in completion.samples)


def answer_all(wishes: Sequence[Wish], error: Exception) -> None:
    for wish in wishes:
        wish.error = error
        wish.done.set()
