"""Delivering to a sink: batches, calls, verdicts, retry. Runs on the event loop; knows no Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from trunkline.bus.deadletters import Failure
from trunkline.bus.delivery import suspects
from trunkline.bus.delivery.calls import verdicts_of
from trunkline.bus.delivery.exhausted import Exhausted, dead_letter
from trunkline.bus.delivery.flights import Flight, Flights
from trunkline.bus.delivery.freeze import Freeze
from trunkline.bus.delivery.gates import HOLD_LIMIT, Gate, Passage
from trunkline.bus.delivery.lanes import Lanes
from trunkline.bus.delivery.outgoing import Delivery, Ticket
from trunkline.bus.delivery.retry import backoff
from trunkline.bus.delivery.trouble import UNANSWERED_SECONDS, Trouble, no_answer
from trunkline.bus.intake import Assigned, Partition
from trunkline.core.cause import Cause
from trunkline.core.contracts import Batch, Sink
from trunkline.core.errors import DefectError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.manifests.models import DeliverySpec
from trunkline.core.metrics import counter, gauge, histogram
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

log = get_logger(__name__)
DEFAULT_IN_FLIGHT = 32
YIELD_EVERY = 32
"""Calls after which a flight lets others run, even if its sink never waits for anything."""


def in_flight_limit(sink: Sink, spec: DeliverySpec) -> int:
    """How many records may be under way at once: what the manifest says, else 32 or one full batch."""
    return spec.in_flight or max(
        DEFAULT_IN_FLIGHT, min(sink.promises.max_batch, spec.batch.count or sink.promises.max_batch)
    )


class Delivering:
    """The deliveries of one sink pipeline on one worker."""

    def __init__(
        self,
        sink: Sink,
        spec: DeliverySpec,
        pipeline: str,
        *,
        loop: asyncio.AbstractEventLoop,
        gates: Sequence[Gate],
        failed: Callable[[TrunklineError], None],
        exhausted: Exhausted = dead_letter,
    ) -> None:
        self._loop = loop
        self._sink = sink
        self._spec = spec
        self._pipeline = pipeline
        self._failed = failed
        self._exhausted = exhausted
        self._limit = in_flight_limit(sink, spec)
        promised = sink.promises.max_batch
        self._most = min(promised, spec.batch.count or promised, self._limit)
        self._passage = Passage(gates)
        self._lanes = Lanes(spec.order)
        self._flights = Flights(spec.timeout, self._landed, loop)
        self._in_flight = 0
        self._suspects = suspects.Suspects(spec.access_refusals)
        self._suspect_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resting: dict[Delivery, asyncio.TimerHandle] = {}
        """What failed and waits to be tried again."""
        self._trouble = Trouble(spec.retry.attempts)
        self._answered_at = 0.0
        """When a call ended last, on the monotonic clock."""
        self._closing = False
        self._paused = False
        self._freeze = Freeze()
        attempts = counter("trunkline_delivery_attempts_total")
        self._attempts = {kind: attempts.labels(pipeline, kind.__name__.lower()) for kind in (Ok, Retry, Dead, Unknown)}
        self._seconds = histogram("trunkline_delivery_seconds").labels(pipeline)

    @property
    def held(self) -> int:
        """Records taken and not settled yet: in lanes, ready, under way or waiting for a retry."""
        return self._lanes.held

    @property
    def held_bytes(self) -> int:
        """The size of those."""
        return self._lanes.held_bytes

    @property
    def answered(self) -> bool:
        """See `Deliveries`."""
        return self._answered_at > 0.0

    def open(self) -> None:
        """See `Deliveries`."""
        # Not before: a version may be made while the one before it still delivers.
        gauge("trunkline_in_flight").labels(self._pipeline).set_function(lambda: self._in_flight)
        self._passage.open(self._pump)

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """See `Deliveries`: records go one by one, whatever their partition."""

    def submit(self, deliveries: Sequence[Delivery], _read_to: Mapping[Partition, int] | None = None, /) -> None:
        """See `Deliveries`. How far a partition was read does not matter."""
        if self._exhausted.holding:
            deliveries = [delivery for delivery in deliveries if not self._exhausted.takes(delivery)]
        self._lanes.add(deliveries)
        self._pump()

    def pause(self, paused: bool) -> None:
        """Starts no call while paused; those under way end."""
        self._paused = paused
        self._pump()

    async def drain(self, deadline: float) -> None:
        """Starts nothing more and waits for the calls under way, at most `deadline` seconds; what is left is cancelled.

        What never began is forgotten: its offset was not committed, so it is read again.
        """
        self._closing = True
        self._passage.close()
        for timer in (self._timer, self._suspect_timer):
            if timer is not None:
                timer.cancel()
        await self._flights.land(deadline)

    def freeze(self) -> None:
        """See `Deliveries`."""
        self._freeze.begin()

    def forget(self, gone: Callable[[Ticket], bool], _partitions: Collection[Partition] = (), /) -> None:
        """See `Deliveries`."""
        resting = [delivery for delivery in self._resting if gone(delivery.ticket)]
        for delivery in resting:
            self._resting.pop(delivery).cancel()
        # First what waits behind them: else a lane would go on with it.
        self._lanes.forget(gone)
        self._trouble.forget(gone)
        for delivery in [*resting, *self._suspects.forget(gone)]:
            self._lanes.release(delivery)
        self._freeze.end()
        self._pump()  # what stays may have been waiting in the same lane

    def under_way(self, of: Callable[[Ticket], bool]) -> bool:
        """Whether a call is under way for one of these tickets."""
        return self._flights.under_way(of)

    def cause(self) -> Cause | None:
        """See `Deliveries`."""
        if not self.held:
            return None
        found, failing = self._passage.cause(), self._trouble.cause()
        if found is None:
            return failing or self._unanswered()
        return found if failing is None else replace(found, records=failing.records)

    def _unanswered(self) -> Cause | None:
        """That a call has no answer for long, while no other one ends either."""
        oldest = self._flights.oldest
        if oldest is None:
            return None
        quiet = time.monotonic() - max(oldest, self._answered_at)
        if quiet < UNANSWERED_SECONDS:
            return None
        return no_answer(quiet, self._spec.timeout, self._in_flight)

    # --- calls ---

    def _pump(self) -> None:
        """Starts as many calls as order, batching, limits and the gates allow."""
        while (batch := self._next()) is not None:
            self._flights.start(batch, self._fly)

    def _next(self) -> Sequence[Delivery] | None:
        """The records of a call that begins now; None where there are none, or a timer or a gate will wake us for them."""
        ready = self._lanes.ready
        if not ready or self._closing or self._paused or self._freeze.holds or self._in_flight >= self._limit:
            return None
        size = 1 if self._most == 1 else self._batch_size()
        if size == 0:
            return None
        wait = self._passage.delay(size)
        if wait > 0.0:
            self._wake_in(wait)
            return None
        self._passage.started(size)
        self._in_flight += size
        return [ready.popleft() for _ in range(size)]

    def _batch_size(self) -> int:
        """How many of the ready records the next call takes; 0 where they should wait for company (a timer is set)."""
        ready, most = self._lanes.ready, self._most
        if self._limit - self._in_flight < min(most, len(ready)):
            return 0  # the end of a call makes room
        count, size = 0, 0
        for delivery in ready:
            if count == most or (count and size + delivery.size > self._spec.batch.bytes):
                return count
            count += 1
            size += delivery.size
        if count == most or size >= self._spec.batch.bytes or ready[0].attempts:
            return count
        age = time.monotonic() - ready[0].ready_at
        if age < self._spec.batch.age:
            self._wake_in(self._spec.batch.age - age)
            return 0
        return count

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(min(seconds, 5.0) + 0.001, self._pump)

    async def _fly(self, flight: Flight) -> None:
        """Call after call, as long as there is something to deliver."""
        if self._freeze.holds or not all(delivery.ticket.stays for delivery in flight.batch):
            self._put_back(flight)
            return
        calls = 0
        while True:
            await self._call(flight)
            batch = self._next()
            if batch is None:
                flight.batch = ()
                return
            self._flights.board(flight, batch)
            if self._lanes.ready and self._in_flight < self._limit:
                self._pump()
            calls += 1
            if calls % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def _put_back(self, flight: Flight) -> None:
        """The first call of a flight did not begin: until its turn came on a busy event loop, a partition was to be given away.

        What waits was dropped before or will be; this was under way, and is dropped here.
        """
        batch = flight.batch
        self._ended(flight, ())
        flight.batch = ()
        self._lanes.ready.extendleft(delivery for delivery in reversed(batch) if delivery.ticket.stays)
        for delivery in batch:
            if not delivery.ticket.stays:
                self._drop(delivery)
        self._pump()

    async def _call(self, flight: Flight) -> None:
        batch = flight.batch
        attempt = (batch[0] if len(batch) == 1 else max(batch, key=_attempts)).attempts + 1
        begun = time.monotonic()
        try:
            verdicts = await verdicts_of(
                self._sink, Batch([delivery.event for delivery in batch], attempt=attempt), self._pipeline
            )
        except asyncio.CancelledError:
            if not flight.overdue:
                raise
            flight.task.uncancel()
            verdicts = [Unknown(f"no answer within {self._spec.timeout:g} s", "sink.timeout")] * len(batch)
        except TrunklineError:
            self._closing = True  # at once: no other flight begins a call before this one has landed
            raise
        excused = self._ended(flight, verdicts)
        self._answered_at = time.monotonic()
        self._seconds.observe(self._answered_at - begun)
        for delivery, verdict in zip(batch, verdicts, strict=True):
            delivery.attempts += 1
            self._judge(delivery, verdict, excused)

    def _ended(self, flight: Flight, verdicts: Sequence[Verdict]) -> bool:
        flight.calling = False
        self._in_flight -= len(flight.batch)
        if flight.batch[0].doubtful and _says_nothing(flight.batch, verdicts):
            verdicts = ()
        return self._passage.ended([delivery.event for delivery in flight.batch], verdicts)

    def _landed(self, flight: Flight) -> None:
        # I24: the gates hear the end of every call that they let begin: a probe that never ends would hold an account for ever.
        if flight.calling:
            self._ended(flight, ())
        if flight.task.cancelled():
            return
        error = flight.task.exception()
        if error is not None:
            self._closing = True
            broken = DefectError(f"{type(error).__name__}: {error}", code="sink.broken")
            self._failed(error if isinstance(error, TrunklineError) else broken)

    # --- verdicts ---

    def _judge(self, delivery: Delivery, verdict: Verdict, excused: bool) -> None:
        self._attempts[type(verdict)].inc()
        if isinstance(verdict, Ok):
            if self._suspects:
                self._clear_suspects()
            if delivery.first_failed_at is not None:
                self._trouble.settled(delivery)
            delivery.ticket.settle("delivered", detail=verdict.reference)
            self._lanes.release(delivery)
            return
        reason = verdict.reason
        if delivery.first_failed_at is None:
            delivery.first_failed_at = time.time()
        if isinstance(verdict, Dead):
            if verdict.access:
                self._suspect(delivery, verdict)
                return
            self._clear_suspects()
            self._bury(delivery, verdict.code, reason)
            return
        if (
            isinstance(verdict, Unknown)
            and not self._sink.promises.idempotent
            and self._spec.on_unknown == "dead-letter"
        ):
            self._bury(delivery, "sink.unknown", f"{reason}; it may have been delivered")
            return
        self._again(delivery, verdict, reason, excused)

    def _again(self, delivery: Delivery, verdict: Retry | Unknown, reason: str, excused: bool) -> None:
        """The record is tried again, or its attempts are used up."""
        if not delivery.ticket.stays:
            self._drop(delivery)  # whoever has its partition next reads it again
            return
        after = verdict.after if isinstance(verdict, Retry) else None
        if excused or after is not None:
            # I23: while an account is at fault no attempt is used up. Whoever names a time means the account, not the record.
            delivery.attempts -= 1
        if delivery.attempts >= self._spec.retry.attempts:
            failure = Failure.exhausted(delivery.attempts, (verdict.code, reason), delivery.first_failed_at)
            self._trouble.settled(delivery)
            self._exhausted(delivery, failure)
            if self._exhausted.holding:
                self._lanes.divert(delivery, self._exhausted.takes)
            self._lanes.release(delivery)
            return
        wait = max(backoff(self._spec.retry, max(delivery.attempts, 1)), min(after or 0.0, HOLD_LIMIT))
        log.info(
            "delivery will be tried again",
            pipeline=self._pipeline,
            place=delivery.event.place,
            wait=round(wait, 3),
            reason=reason,
        )
        self._trouble.failed(delivery, verdict, reason, at=time.time(), wait=wait)
        self._resting[delivery] = self._loop.call_later(wait, self._retry_now, delivery)

    def _retry_now(self, delivery: Delivery) -> None:
        del self._resting[delivery]
        if not self._closing:
            self._lanes.again(delivery)
            self._pump()

    def _bury(self, delivery: Delivery, code: str, reason: str) -> None:
        if delivery.ticket.current:  # else whoever has its partition now finds out for himself
            delivery.ticket.save_dead(self._failure(delivery, code, reason))
        self._drop(delivery)

    def _drop(self, delivery: Delivery) -> None:
        """Nothing more is done about it here."""
        self._trouble.settled(delivery)
        self._lanes.release(delivery)

    @staticmethod
    def _failure(delivery: Delivery, code: str, reason: str) -> Failure:
        return Failure(
            "SINK", code, reason, attempts=max(delivery.attempts, 1), first_failed_at=delivery.first_failed_at
        )

    # --- refusals that may be ours ---

    def _suspect(self, delivery: Delivery, verdict: Dead) -> None:
        if not delivery.ticket.stays:
            self._drop(delivery)
            return
        error = self._suspects.add(delivery, verdict)
        if error is not None:
            self._closing = True
            self._failed(error)
            return
        self._trouble.settled(delivery)
        # Its own key goes on: whatever the suspicion comes to, this record will not be delivered in this run.
        self._lanes.step_aside(delivery)
        if self._suspect_timer is not None:
            self._suspect_timer.cancel()
        self._suspect_timer = self._loop.call_later(suspects.PATIENCE, self._after_patience)

    def _after_patience(self) -> None:
        if not self._closing and self._in_flight == 0 and not self._lanes.ready:
            self._clear_suspects()
        elif not self._closing:
            self._suspect_timer = self._loop.call_later(suspects.PATIENCE, self._after_patience)

    def _clear_suspects(self) -> None:
        """Something else was answered: the access is fine, so the refused records are dead letters."""
        if self._closing:
            return  # nothing is buried after the verdict that our access is wrong; what is unsettled is read again
        for delivery, verdict in self._suspects.clear():
            self._bury(delivery, verdict.code, verdict.reason)


def _says_nothing(batch: Sequence[Delivery], verdicts: Sequence[Verdict]) -> bool:
    """Whether a call failed of which nothing else was to be expected: parked heads alone must not close an account to the others."""
    return all(delivery.doubtful for delivery in batch) and all(
        isinstance(verdict, Unknown) or (isinstance(verdict, Retry) and verdict.after is None) for verdict in verdicts
    )


def _attempts(delivery: Delivery) -> int:
    return delivery.attempts
