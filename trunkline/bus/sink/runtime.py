"""The sink runtime: a polling thread that reads, decodes and commits, and deliveries on the event loop.

What there is of it is made by `assembly.py`. The thread is `polling.py`, its membership in the group `membership.py`; what is
settled comes back through tickets into an offset tracker a partition, and `committing.py` commits how far that is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trunkline.bus.parking.desk import DecisionDesk
from trunkline.bus.runtime import LedgerCounts, RuntimeReport
from trunkline.bus.sink.accounts import AccountGates
from trunkline.bus.sink.parts import Parts
from trunkline.bus.sink.polling import PollingThread
from trunkline.bus.threads import in_own_thread
from trunkline.core.cause import Cause
from trunkline.core.metrics import gauge


class SinkRuntime:
    """Runs one sink on one worker. See `Runtime`."""

    def __init__(
        self,
        parts: Parts,
        polling: PollingThread,
        account: AccountGates,
        decisions: DecisionDesk,
        taken: Callable[[], int],
    ) -> None:
        self._pipeline = parts.pipeline
        self._deliveries = parts.deliveries
        self._loop = parts.loop
        self._lifecycle = parts.lifecycle
        self._committing = parts.committing
        self._parking = parts.parking
        self._polling = polling
        self._account = account
        self._decisions = decisions
        self._taken = taken
        tickets = parts.tickets
        self._summed = LedgerCounts(
            lambda: tickets.committed_positions, lambda: tickets.ledgers, lambda: tickets.releases
        )
        parts.lifecycle.on_failure = self._rest

    async def run(self) -> None:
        """See `Runtime`. What people decide about parked keys is heard as long as this runs; else it waits in Kafka."""
        deliveries, parking = self._deliveries, self._parking
        deliveries.open()
        gauge("trunkline_held_records").labels(self._pipeline).set_function(lambda: deliveries.held)
        gauge("trunkline_held_bytes").labels(self._pipeline).set_function(lambda: deliveries.held_bytes)
        if parking is not None:
            parking.open()
            self._decisions.attend(self._pipeline, parking.decide)
        try:
            await in_own_thread(self._polling.run, f"sink-{self._pipeline}")
        finally:
            self._decisions.leave(self._pipeline)
        if self._lifecycle.failure is not None:
            raise self._lifecycle.failure

    def stop(self) -> None:
        """See `Runtime`."""
        self._lifecycle.stop.set()

    def pause(self) -> None:
        """See `Runtime`."""
        self._lifecycle.paused.set()
        self._loop.post(self._deliveries.pause, True)

    def resume(self) -> None:
        """See `Runtime`."""
        self._lifecycle.paused.clear()
        self._loop.post(self._deliveries.pause, False)

    def check_topics(self) -> None:
        """See `Runtime`."""
        self._lifecycle.topics_in_doubt.set()

    def report(self) -> RuntimeReport:
        """See `Runtime`."""
        summed = self._summed.look()
        parking = self._parking
        parked_records, parked_keys = (parking.records, parking.keys) if parking is not None else (0, 0)
        breaker = self._account.breaker.state.word
        cause = self._cause()
        if cause is not None:
            cause = replace(cause, breaker=breaker, parked_records=parked_records, parked_keys=parked_keys)
        return RuntimeReport(
            counts=summed.counts,
            open=summed.open,
            positions=summed.positions,
            ledgers=summed.ledgers,
            parked_records=parked_records,
            parked_keys=parked_keys,
            fallback=self._taken(),
            breaker=breaker,
            cause=cause,
            untried=self._deliveries.held > 0 and not self._deliveries.answered,
        )

    def _cause(self) -> Cause | None:
        """What keeps all of its records comes before what keeps some keys."""
        parked = self._parking.cause() if self._parking is not None else None
        return self._committing.cause or self._deliveries.cause() or parked

    def _rest(self) -> None:
        """No call begins any more; those under way end, and count."""
        self._deliveries.freeze()
        self._loop.post(self._deliveries.pause, True)
