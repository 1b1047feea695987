"""The circuit breaker of an account: stops calling a system that fails, and finds out when it is back.

Closed, half-open and open are Nygard's words ("Release It!", Stability Patterns).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum

from trunkline.bus.delivery.gates import Bell
from trunkline.core.cause import Cause
from trunkline.core.event import Event
from trunkline.core.log import get_logger
from trunkline.core.manifests.models import BreakerSpec
from trunkline.core.metrics import gauge
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

log = get_logger(__name__)
MIN_RECORDS = 5
"""Failures of so many different records open it (or `calls`, where that is fewer): one that always fails does not."""
REMEMBERED = 5
"""Of the window the last `calls` x 5 calls count: after an hour of success it must not take an hour of failure."""
PROBE_SECONDS = 5.0
"""How long others wait before they ask again whether a probe has ended; its end wakes them earlier."""


class BreakerState(IntEnum):
    """Its states, as the metric shows them."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2

    @property
    def word(self) -> str:
        """How people read it: `half-open`."""
        return self.name.lower().replace("_", "-")


class Breaker:
    """A gate that is open to calls while the breaker is closed.

    A call failed when none of its records was answered (`Retry` without a time, `Unknown`). While the breaker is open records
    wait, offsets are held, and no attempt is used up; then one call at a time probes, after `wait`, twice that, … at most `longest`.
    """

    def __init__(self, account: str, spec: BreakerSpec, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._account = account
        self._spec = spec
        self._clock = clock
        self._records = min(MIN_RECORDS, spec.calls)
        self._calls: deque[tuple[float, str | None]] = deque()
        """When a call ended, and for a failed one the place of its first record."""
        self._failed = 0
        self._last: Retry | Unknown | None = None
        """What the call that failed last was answered."""
        self._opened_at = 0.0
        """Since when it is not closed, in Unix seconds."""
        self._wait = spec.wait
        self._until = 0.0
        self._probing = False
        self._bell = Bell()
        self._gauge = gauge("trunkline_breaker_state").labels(account)
        self.state = BreakerState.CLOSED
        self._gauge.set(self.state)

    def delay(self, records: int) -> float:
        """See `Gate`."""
        if self.state is BreakerState.CLOSED:
            return 0.0
        if self._probing:
            return PROBE_SECONDS
        return max(0.0, self._until - self._clock())

    def started(self, records: int) -> None:
        """See `Gate`."""
        if self.state is not BreakerState.CLOSED:
            self._probing = True
            self._become(BreakerState.HALF_OPEN)

    def ended(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> bool:
        """See `Gate`. A named time (`Retry.after`) is an answer: the system is there, and says when."""
        if self.state is BreakerState.CLOSED:
            if not verdicts:
                return False
            failed = not any(map(_answered, verdicts))
            self._note(events[0].place if failed else None)
            if failed:
                self._remember(verdicts[0])
                if self._fails():
                    self._opened_at = time.time()
                    self._open()
            return self.state is not BreakerState.CLOSED
        if not verdicts:
            self._probing = False
            self._bell.ring()
        elif any(map(_answered, verdicts)):
            self._close()
        elif self._probing:
            self._remember(verdicts[0])
            # Calls that began before it opened end now too: any of them may be taken for the probe, and says the same.
            self._wait = min(self._wait * 2, self._spec.longest)
            self._open()
        return True

    def watch(self, opened: Callable[[], None]) -> Callable[[], None]:
        """See `Gate`."""
        return self._bell.watch(opened)

    def cause(self) -> Cause | None:
        """See `Gate`."""
        if self.state is BreakerState.CLOSED:
            return None
        last = self._last.reason if self._last is not None else "no call was answered"
        return Cause(
            "breaker.open",
            f"the breaker of {self._account} is {self.state.word}, since too many calls failed; the last: {last}",
            hint="nothing is lost: one call at a time probes, and all go on by themselves when one is answered; mend the other system",
            since=self._opened_at,
            next_try=time.time() + max(0.0, self._until - self._clock()),
            error_code=self._last.code if self._last is not None else None,
            breaker=self.state.word,
            account=self._account,
        )

    def _remember(self, verdict: Verdict) -> None:
        self._last = verdict if isinstance(verdict, (Retry, Unknown)) else None

    def _note(self, failed: str | None) -> None:
        now = self._clock()
        calls = self._calls
        calls.append((now, failed))
        self._failed += failed is not None
        oldest = now - self._spec.window
        while len(calls) > self._spec.calls * REMEMBERED or calls[0][0] < oldest:
            self._failed -= calls.popleft()[1] is not None

    def _fails(self) -> bool:
        if len(self._calls) < self._spec.calls or self._failed < self._spec.share * len(self._calls):
            return False
        return len({place for _, place in self._calls if place is not None}) >= self._records

    def _open(self) -> None:
        self._probing = False
        self._until = self._clock() + self._wait
        self._become(BreakerState.OPEN)

    def _close(self) -> None:
        self._calls.clear()
        self._failed = 0
        self._wait, self._probing = self._spec.wait, False
        self._become(BreakerState.CLOSED)
        self._bell.ring()

    def _become(self, state: BreakerState) -> None:
        if state is self.state:
            return
        self.state = state
        self._gauge.set(state)
        say = log.info if state is BreakerState.CLOSED else log.warning
        last = self._last.reason if self._last is not None and state is not BreakerState.CLOSED else None
        say("breaker", connection=self._account, state=state.word, wait=self._wait, failed=self._failed, last=last)


def _answered(verdict: Verdict) -> bool:
    return isinstance(verdict, (Ok, Dead)) or (isinstance(verdict, Retry) and verdict.after is not None)
