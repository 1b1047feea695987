"""Gates: what stands between a record that is ready and the call that delivers it. All of it on the event loop.

A gate belongs to an account (a `Connection`) and is passed by every pipeline of the worker that uses it. `accounts.py` makes
the gates of a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from trunkline.core.cause import Cause
from trunkline.core.event import Event
from trunkline.core.verdicts import Dead, Retry, Verdict

HOLD_LIMIT = 300.0
"""Seconds that another system may make us wait at most: what names a longer time is asked again after these."""


def clock_time(moment: float) -> str:
    """A Unix time as people read it: `12:30:05Z`."""
    return datetime.fromtimestamp(round(moment), UTC).strftime("%H:%M:%SZ")


class Gate(Protocol):
    """Decides when a call may begin. Each `started` is followed by one `ended`."""

    def delay(self, records: int) -> float:
        """Seconds until a call of so many records may begin: 0.0 for now. Changes nothing."""

    def started(self, records: int) -> None:
        """A call of so many records begins."""

    def ended(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> bool:
        """A call ended with these verdicts, one for each event; without any where it was cancelled or the account refused.

        True where the gate knows that the account was at fault: then the call uses up no attempt of its records.
        """

    def watch(self, opened: Callable[[], None]) -> Callable[[], None]:
        """Has `opened` called whenever a call may begin earlier than `delay` said. Returns what ends that."""

    def cause(self) -> Cause | None:
        """Why it holds calls back now; None while it lets them begin."""


class Bell:
    """Those who wait at a gate, and the signal that it opened."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def watch(self, opened: Callable[[], None]) -> Callable[[], None]:
        """See `Gate.watch`."""
        self._waiting.append(opened)
        return lambda: self._waiting.remove(opened)

    def ring(self) -> None:
        """Tells everyone."""
        for opened in list(self._waiting):
            opened()


class NamedWait:
    """Holds every call back until the time that another system named (`Retry-After`): it means the account, not the record."""

    def __init__(self, account: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._account = account
        self._clock = clock
        self._until = 0.0
        self._since = 0.0
        self._named: Retry | None = None
        """The verdict that named the time."""

    def delay(self, records: int) -> float:
        """See `Gate`."""
        return max(0.0, self._until - self._clock()) if self._until else 0.0

    def started(self, records: int) -> None:
        """See `Gate`."""

    def ended(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> bool:
        """See `Gate`. A record whose verdict names a time has used up no attempt anyway."""
        for verdict in verdicts:
            if isinstance(verdict, Retry) and verdict.after is not None:
                self._hold(verdict, verdict.after)
        return False

    def _hold(self, verdict: Retry, seconds: float) -> None:
        now = self._clock()
        until = now + min(seconds, HOLD_LIMIT)
        if until <= self._until:
            return
        if now >= self._until:
            self._since = time.time()
        self._until, self._named = until, verdict

    def cause(self) -> Cause | None:
        """See `Gate`."""
        left = self.delay(1)
        if left <= 0.0 or self._named is None:
            return None
        until = time.time() + left
        return Cause(
            self._named.code,
            f"{self._account} asks for a pause until {clock_time(until)}: {self._named.reason}",
            hint="nothing is lost, and it goes on by itself then; fewer or larger calls (`limits` of its Connection, `batch`) avoid it",
            since=self._since,
            next_try=until,
            account=self._account,
            limit=self._named.limit,
        )

    def watch(self, opened: Callable[[], None]) -> Callable[[], None]:
        """See `Gate`."""
        return lambda: None


class OneAtFirst:
    """Lets calls go one by one until the account has taken one: for a pipeline that it refused before, and may still refuse.

    It belongs to one run of one pipeline.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._open = False
        self._bell = Bell()

    def delay(self, records: int) -> float:
        """See `Gate`."""
        return 0.0 if self._open or not self._under_way else HOLD_LIMIT

    def started(self, records: int) -> None:
        """See `Gate`."""
        self._under_way += 1

    def ended(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> bool:
        """See `Gate`. Without verdicts the account refused again; so it may have where the verdict is about access."""
        self._under_way -= 1
        if not all(isinstance(verdict, Dead) and verdict.access for verdict in verdicts):
            self._open = True
        self._bell.ring()
        return False

    def cause(self) -> Cause | None:
        """See `Gate`. Why it begins so, its pipeline tells."""
        return None

    def watch(self, opened: Callable[[], None]) -> Callable[[], None]:
        """See `Gate`."""
        return self._bell.watch(opened)


class Passage:
    """All the gates that a pipeline's calls pass, as one."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = tuple(gates)
        self._leave: list[Callable[[], None]] = []

    def open(self, opened: Callable[[], None]) -> None:
        """Waits at the gates: `opened` is called whenever a call may begin earlier than `delay` said. On the event loop."""
        self._leave = [gate.watch(opened) for gate in self._gates]

    def delay(self, records: int) -> float:
        """Seconds until every gate lets a call of so many records begin."""
        wait = 0.0
        for gate in self._gates:
            wait = max(wait, gate.delay(records))
        return wait

    def started(self, records: int) -> None:
        """Tells every gate that a call begins."""
        for gate in self._gates:
            gate.started(records)

    def ended(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> bool:
        """Tells every gate what came of a call. True when any of them knows that the records were not at fault."""
        excused = False
        for gate in self._gates:
            excused = gate.ended(events, verdicts) or excused
        return excused

    def cause(self) -> Cause | None:
        """Why a gate holds calls back now: the breaker before the budget, the budget before a wait that was named."""
        return next((found for gate in reversed(self._gates) if (found := gate.cause()) is not None), None)

    def close(self) -> None:
        """Waits at the gates no more."""
        leave, self._leave = self._leave, []
        for end in leave:
            end()
