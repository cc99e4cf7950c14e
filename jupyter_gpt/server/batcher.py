"""Continuous batching of the served requests: each model has one batch, and a request joins it between two tokens.

A batch begins a few milliseconds after its first request, so that a burst is read together. It is a job of the device's
worker like any other and takes turns with a run and a `%%prompt`. When a client has disconnected, its samples end at
the next token.
"""

from __future__ import annotations

import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jupyter_gpt.errors import is_out_of_memory
from jupyter_gpt.nn.devices import give_back
from jupyter_gpt.runs.worker import worker

DELAY = 0.005  # seconds the first request of a batch waits for others
TIME_SLICE = 0.01  # seconds of sampling before other jobs of the device get their turn


@dataclass(eq=False)
class Ticket:
    """One prompt. `request` is the engine's. `deliver` is called on the server's loop with each Token, and once with
    None at the end, or with the error that ended it.
    """

    module: object
    request: object
    deliver: Callable[[object], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    unfinished: int = 0  # samples


class Batcher:
    """Takes tickets on any thread and runs them through the engine on the worker."""

    def __init__(self, loop: AbstractEventLoop):
        self.loop = loop
        self.lock = threading.Lock()
        self.queue: list[Ticket] = []
        self.active: list[object] = []  # modules with a batch
        self.tickets: set[Ticket] = set()  # queued or in a batch
        self.widest = 0  # most requests there ever were in one batch

    def submit(self, ticket: Ticket) -> None:
        """Queue a ticket, and start its model's batch if there is none."""
        ticket.unfinished = ticket.request.samples
        with self.lock:
            self.tickets.add(ticket)
            self.queue.append(ticket)
            start = not any(module is ticket.module for module in self.active)
            if start:
                self.active.append(ticket.module)
        if start:
            self.loop.call_later(DELAY, lambda: worker("torch").submit(self.job(ticket.module)))

    def dequeue(self, module) -> list[Ticket]:
        """The tickets queued for this model, without those that were cancelled, which end."""
        with self.lock:
            tickets = [ticket for ticket in self.queue if ticket.module is module]
            self.queue = [ticket for ticket in self.queue if ticket.module is not module]
        for ticket in tickets:
            if ticket.cancelled.is_set():
                self.end(ticket)
        return [ticket for ticket in tickets if not ticket.cancelled.is_set()]

    def job(self, module) -> Iterator[None]:
        """The worker's job for one model, until its queue is empty. An error ends the tickets in the batch only."""
        batch: dict[int, Ticket] = {}
        while True:
            try:
                yield from self.run_batch(module, batch)
            except Exception as error:  # the clients are told; the worker and the server continue
                for ticket in batch.values():
                    self.end(ticket, error)
                batch.clear()
                if is_out_of_memory(error):
                    error.__traceback__ = None  # its frames hold the batch
                    give_back(module.device.type)
            with self.lock:
                if not any(ticket.module is module for ticket in self.queue):
                    self.active = [other for other in self.active if other is not module]
                    return

    def run_batch(self, module, tickets: dict[int, Ticket]) -> Iterator[None]:
        """One batch from its first request to the end of its last; `tickets` are those in it, by request number."""
        from jupyter_gpt.inference.engine import Batch

        batch, turn = Batch(module, reuse=True), time.perf_counter()
        while True:
            for ticket in self.dequeue(module):
                try:
                    tickets[batch.add(ticket.request)] = ticket
                except Exception as error:  # of this request, not of the others
                    self.end(ticket, error)
            self.widest = max(self.widest, len(tickets))
            if not batch.busy:
                return
            for token in batch.step():
                ticket = tickets[token.request]
                self.call(ticket.deliver, token)
                ticket.unfinished -= token.finish is not None
                if ticket.unfinished == 0:
                    self.end(tickets.pop(token.request))
            if time.perf_counter() - turn > TIME_SLICE:
                yield
                turn = time.perf_counter()

    def end(self, ticket: Ticket, error: Exception | None = None) -> None:
        with self.lock:
            self.tickets.discard(ticket)
        self.call(ticket.deliver, error)

    def call(self, function: Callable, argument: object) -> None:
        """Call a function on the server's loop, unless that is closed."""
        try:
            self.loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def cancel_all(self) -> None:
        with self.lock:
            tickets = list(self.tickets)
        for ticket in tickets:
            ticket.cancelled.set()
