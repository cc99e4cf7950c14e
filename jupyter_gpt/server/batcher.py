"""Requests to the served models meet in one batch: each model has one under way, and whoever comes joins it.

A batch begins a few milliseconds after the first request, so that a burst is read together; one that comes
later joins between two tokens. It is a job of the device's worker like any other, so it takes turns with a
run and a `%%prompt`. When a client has gone, its rows end at the next token and make room.
"""

from __future__ import annotations

import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jupyter_gpt.models import memory
from jupyter_gpt.runs.worker import worker

GATHER = 0.005  # seconds the first request of a batch waits for others
SLICE = 0.01  # seconds of sampling between two looks at whoever else wants the device


@dataclass(eq=False)
class Ticket:
    """A prompt that waits: `request` is the engine's, `deliver` is called on the server's loop with each
    Token, and at the end once with None, or with the error that ended it."""

    module: object
    request: object
    deliver: Callable[[object], None]
    gone: threading.Event = field(default_factory=threading.Event)  # nobody waits for it any more
    open: int = 0  # samples that have not ended


class Batcher:
    """Takes tickets on any thread and sees them through the engine on the worker."""

    def __init__(self, loop: AbstractEventLoop):
        self.loop = loop
        self.lock = threading.Lock()
        self.waiting: list[Ticket] = []
        self.under_way: list[object] = []  # modules with a batch
        self.tickets: set[Ticket] = set()
        self.widest = 0  # most requests that were ever in one batch together

    def submit(self, ticket: Ticket) -> None:
        """Queue a ticket, and start its model's batch if there is none."""
        ticket.open = ticket.request.samples
        with self.lock:
            self.tickets.add(ticket)
            self.waiting.append(ticket)
            starting = not any(module is ticket.module for module in self.under_way)
            if starting:
                self.under_way.append(ticket.module)
        if starting:
            self.loop.call_later(GATHER, lambda: worker("torch").submit(self.job(ticket.module)))

    def taken(self, module) -> list[Ticket]:
        """The tickets that wait for this model, taken out of the queue; those already gone are only told
        so."""
        with self.lock:
            mine = [ticket for ticket in self.waiting if ticket.module is module]
            self.waiting = [ticket for ticket in self.waiting if ticket.module is not module]
        for ticket in mine:
            if ticket.gone.is_set():
                self.end(ticket, None)
        return [ticket for ticket in mine if not ticket.gone.is_set()]

    def job(self, module) -> Iterator[None]:
        """What the worker runs for one model until nobody waits. An error ends those in the batch, and no
        others."""
        riding: dict[int, Ticket] = {}
        while True:
            try:
                yield from self.ride(module, riding)
            except Exception as error:  # each client is told; the worker and the server live on
                for ticket in riding.values():
                    self.end(ticket, error)
                riding.clear()
                if memory.is_out_of_memory(error):
                    error.__traceback__ = None  # it holds the batch
                    memory.give_back(module.device.type)
            with self.lock:
                if not any(ticket.module is module for ticket in self.waiting):
                    self.under_way = [other for other in self.under_way if other is not module]
                    return

    def ride(self, module, riding: dict[int, Ticket]) -> Iterator[None]:
        """One batch from its first request to the end of its last; `riding` are those in it, by the batch's
        numbers."""
        from jupyter_gpt.inference.engine import Batch

        batch, turn = Batch(module), time.perf_counter()
        while True:
            for ticket in self.taken(module):
                try:
                    riding[batch.add(ticket.request)] = ticket
                except Exception as error:  # this one cannot be answered, the others can
                    self.end(ticket, error)
            self.widest = max(self.widest, len(riding))
            if not batch.busy:
                return
            for token in batch.step():
                self.hand(token, riding)
            if time.perf_counter() - turn > SLICE:
                yield
                turn = time.perf_counter()

    def hand(self, token, riding: dict[int, Ticket]) -> None:
        ticket = riding[token.request]
        self.tell(ticket.deliver, token)
        ticket.open -= token.finish is not None
        if ticket.open == 0:
            self.end(riding.pop(token.request), None)

    def end(self, ticket: Ticket, error: Exception | None) -> None:
        with self.lock:
            self.tickets.discard(ticket)
        self.tell(ticket.deliver, error)

    def tell(self, function: Callable, argument: object) -> None:
        """Call a function on the server's loop; one that has stopped hears nothing."""
        try:
            self.loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def cancel_all(self) -> None:
        """Nobody waits for anything any more."""
        with self.lock:
            tickets = list(self.tickets)
        for ticket in tickets:
            ticket.gone.set()
