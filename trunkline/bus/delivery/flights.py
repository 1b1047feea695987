"""Flights: the calls of a sink that are under way, and the one timer that ends those which take too long.

A flight is a task that makes one call after the other as long as there is something to deliver, so that a busy sink makes no
task and no timer for each record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from trunkline.bus.delivery.outgoing import Delivery, Ticket

CANCEL_SECONDS = 5.0
"""How long a cancelled call may take to end."""


class Flight:
    """One call at a time: its records, whether it has not ended, and when (on the loop's clock) it has taken too long."""

    __slots__ = ("batch", "calling", "deadline", "overdue", "task")

    def __init__(self) -> None:
        self.batch: Sequence[Delivery] = ()
        self.calling = False
        self.deadline = 0.0
        self.overdue = False
        self.task: asyncio.Task[None]


class Flights:
    """All flights of one pipeline. `timeout` is in seconds."""

    def __init__(self, timeout: float, landed: Callable[[Flight], None], loop: asyncio.AbstractEventLoop) -> None:
        # Kept: asking for it at each call is a system call (CPython up to 3.11 compares process ids).
        self._loop = loop
        self._timeout = timeout
        self._landed = landed
        self._flights: dict[asyncio.Task[None], Flight] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, batch: Sequence[Delivery], fly: Callable[[Flight], Coroutine[Any, Any, None]]) -> None:
        """Begins a flight with its first call."""
        flight = Flight()
        self.board(flight, batch)
        flight.task = self._loop.create_task(fly(flight))
        self._flights[flight.task] = flight
        flight.task.add_done_callback(self._down)

    def board(self, flight: Flight, batch: Sequence[Delivery]) -> None:
        """The records of the flight's next call, whose time begins to run."""
        flight.batch, flight.calling = batch, True
        flight.deadline = self._loop.time() + self._timeout
        flight.overdue = False
        if self._timer is None:
            self._timer = self._loop.call_at(flight.deadline, self._sweep)

    @property
    def oldest(self) -> float | None:
        """When the oldest of the calls under way began, on the monotonic clock; None where there is none."""
        deadlines = [flight.deadline for flight in self._flights.values() if flight.calling]
        if not deadlines:
            return None
        # The loop's clock and ours need not be the same.
        return time.monotonic() - (self._loop.time() - (min(deadlines) - self._timeout))

    def under_way(self, of: Callable[[Ticket], bool]) -> bool:
        """Whether a call is under way for one of these tickets."""
        # A copy: the polling thread asks while the event loop goes on.
        return any(of(delivery.ticket) for flight in list(self._flights.values()) for delivery in flight.batch)

    async def land(self, deadline: float) -> None:
        """Waits for the calls under way, at most `deadline` seconds; what is left is cancelled."""
        if self._flights:
            await asyncio.wait(list(self._flights), timeout=deadline)
        for task in list(self._flights):
            task.cancel()
        if self._flights:
            await asyncio.wait(list(self._flights), timeout=CANCEL_SECONDS)
        if self._timer is not None:
            self._timer.cancel()

    def _down(self, task: asyncio.Task[None]) -> None:
        self._landed(self._flights.pop(task))

    def _sweep(self) -> None:
        """Ends what is overdue, and looks again when the next one would be: a call that begins later has more time."""
        now, following = self._loop.time(), None
        for flight in self._flights.values():
            if flight.overdue or not flight.calling:
                continue
            if flight.deadline <= now:
                flight.overdue = True
                flight.task.cancel()
            elif following is None or flight.deadline < following:
                following = flight.deadline
        self._timer = self._loop.call_at(following, self._sweep) if following is not None else None
