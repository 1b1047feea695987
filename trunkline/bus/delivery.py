"""Delivering to a sink: lanes that keep order, batches, verdicts, retry. Runs on the event loop; knows no Kafka.

A *lane* is what must stay in order: a key, or a partition. The first record of a lane is *ready*; the next one becomes ready
when it is settled. So a record that must be retried holds back its own lane and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trunkline.bus.deadletters import Failure
from trunkline.bus.ledger import Outcome
from trunkline.bus.retry import HOLD_LIMIT, Breaker, backoff
from trunkline.core.contracts import Batch, Sink
from trunkline.core.errors import FatalError, RejectedError, RetriableError, TrunklineError
from trunkline.core.event import Event
from trunkline.core.log import get_logger
from trunkline.core.manifests.models import DeliverySpec
from trunkline.core.metrics import counter, gauge, histogram
from trunkline.core.secret import redact
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

log = get_logger(__name__)
DEFAULT_IN_FLIGHT = 32
SUSPECT_PATIENCE = 3.0
"""Seconds without any other delivery after which a refused record (403, 404) is taken to be the record's own fault."""


class Ticket(Protocol):
    """The place in Kafka that a delivery answers for."""

    def settle(self, outcome: Outcome, *, detail: str | None = None) -> None:
        """The record ended so."""

    def save_dead(self, failure: Failure) -> None:
        """Saves the record as a dead letter, and settles it when the broker has acknowledged that."""

    @property
    def current(self) -> bool:
        """False once the partition has gone to another worker: what happens now must not be committed here."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A record on its way out."""

    event: Event
    ticket: Ticket
    size: int
    attempts: int = 0
    first_failed_at: float | None = None
    last_reason: str = ""
    lane: Hashable = None
    ready_at: float = field(default=0.0)


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
        failed: Callable[[TrunklineError], None],
    ) -> None:
        self._sink = sink
        self._spec = spec
        self._pipeline = pipeline
        self._failed = failed
        promised = sink.promises.max_batch
        self._most = min(promised, spec.batch.count or promised)
        self._limit = in_flight_limit(sink, spec)
        self._ready: deque[Delivery] = deque()
        self._lanes: dict[Hashable, deque[Delivery]] = {}
        self._flights: dict[asyncio.Task[None], list[Delivery]] = {}
        self._in_flight = 0
        self._held = 0
        self._suspects: list[tuple[Delivery, Dead]] = []
        self._suspect_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._hold_until = 0.0
        self._breaker = Breaker()
        self._closing = False
        self._paused = False
        self._attempts = counter("trunkline_delivery_attempts_total")
        self._seconds = histogram("trunkline_delivery_seconds").labels(pipeline)
        self._gauge = gauge("trunkline_in_flight").labels(pipeline)

    @property
    def held(self) -> int:
        """Records taken and not settled yet: in lanes, ready, under way or waiting for a retry."""
        return self._held

    @property
    def breaker_open(self) -> bool:
        """Whether deliveries are held back because the other system answers nobody."""
        return self._breaker.is_open

    def submit(self, deliveries: Sequence[Delivery]) -> None:
        """Takes records in the order they were read."""
        now = time.monotonic()
        order = self._spec.order
        for delivery in deliveries:
            self._held += 1
            delivery.ready_at = now
            event = delivery.event
            if order == "partition":
                delivery.lane = (event.topic, event.partition)
            elif order == "key":
                delivery.lane = event.raw_key
            if delivery.lane is None:
                self._ready.append(delivery)
                continue
            # I11: of a lane one record at a time is under way: the next one waits until it is settled.
            waiting = self._lanes.get(delivery.lane)
            if waiting is None:
                self._lanes[delivery.lane] = deque()
                self._ready.append(delivery)
            else:
                waiting.append(delivery)
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
        for timer in (self._timer, self._suspect_timer):
            if timer is not None:
                timer.cancel()
        if self._flights:
            await asyncio.wait(list(self._flights), timeout=deadline)
        for task in list(self._flights):
            task.cancel()
        if self._flights:
            await asyncio.wait(list(self._flights), timeout=5.0)

    def forget(self, gone: Callable[[Ticket], bool]) -> None:
        """Drops the waiting records of partitions that went away. Those under way end and are not committed."""
        for lane in list(self._lanes):
            kept = deque(delivery for delivery in self._lanes[lane] if not gone(delivery.ticket))
            self._held -= len(self._lanes[lane]) - len(kept)
            self._lanes[lane] = kept
        dropped = [delivery for delivery in self._ready if gone(delivery.ticket)]
        self._ready = deque(delivery for delivery in self._ready if not gone(delivery.ticket))
        for delivery in dropped:
            self._release(delivery)
        suspects = [(delivery, verdict) for delivery, verdict in self._suspects if not gone(delivery.ticket)]
        self._held -= len(self._suspects) - len(suspects)
        self._suspects = suspects

    def under_way(self, of: Callable[[Ticket], bool]) -> bool:
        """Whether a call is under way for one of these tickets."""
        # A copy: the polling thread asks while the event loop goes on.
        return any(of(delivery.ticket) for batch in list(self._flights.values()) for delivery in batch)

    # --- calls ---

    def _pump(self) -> None:
        """Starts as many calls as order, batching, limits and the breaker allow."""
        while self._ready and not self._closing and not self._paused:
            now = time.monotonic()
            wait = max(self._hold_until - now, self._breaker.delay())
            if wait > 0:
                self._wake_in(wait)
                return
            room = self._limit - self._in_flight
            if room <= 0:
                return
            batch = self._next_batch(room, now)
            if batch is None:
                return
            self._breaker.started()
            self._in_flight += len(batch)
            task = asyncio.create_task(self._call(batch))
            self._flights[task] = batch
            task.add_done_callback(self._ended)

    def _next_batch(self, room: int, now: float) -> list[Delivery] | None:
        """The next call's records, or None where they should wait for company (a timer is set)."""
        most = min(self._most, self._limit)
        if most == 1:
            return [self._ready.popleft()]
        if room < min(most, len(self._ready)):
            return None  # the end of a call makes room
        full = len(self._ready) >= most or sum(delivery.size for delivery in self._ready) >= self._spec.batch.bytes
        age = now - self._ready[0].ready_at
        if not full and age < self._spec.batch.age and self._ready[0].attempts == 0:
            self._wake_in(self._spec.batch.age - age)
            return None
        batch: list[Delivery] = []
        size = 0
        while self._ready and len(batch) < most and (not batch or size + self._ready[0].size <= self._spec.batch.bytes):
            delivery = self._ready.popleft()
            batch.append(delivery)
            size += delivery.size
        return batch

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(min(seconds, 5.0) + 0.001, self._pump)

    async def _call(self, batch: list[Delivery]) -> None:
        attempt = max(delivery.attempts for delivery in batch) + 1
        begun = time.monotonic()
        try:
            verdicts = await self._verdicts(batch, attempt)
        except FatalError as error:
            self._closing = True
            self._failed(error)
            return
        self._seconds.observe(time.monotonic() - begun)
        for delivery, verdict in zip(batch, verdicts, strict=True):
            delivery.attempts += 1
            self._judge(delivery, verdict)

    async def _verdicts(self, batch: list[Delivery], attempt: int) -> Sequence[Verdict]:
        """One verdict for each record, whatever the plug-in does. Raises FatalError."""
        events = [delivery.event for delivery in batch]
        try:
            async with asyncio.timeout(self._spec.timeout):
                verdicts = await self._sink.write(Batch(events, attempt=attempt))
        except FatalError:
            raise
        except RejectedError as error:
            return [Dead(str(error), error.code)] * len(batch)
        except RetriableError as error:
            return [Retry(str(error), error.after)] * len(batch)
        except TimeoutError:
            return [Unknown(f"no answer within {self._spec.timeout:g} s")] * len(batch)
        except TrunklineError as error:
            raise FatalError(error.message, where=error.where, hint=error.hint, code=error.code) from error
        except Exception as error:
            log.exception("the sink raised", pipeline=self._pipeline)
            return [Unknown(f"{type(error).__name__}: {error}")] * len(batch)
        if len(verdicts) != len(batch):
            # I2: one verdict for each record, or none of them counts.
            return [Unknown(f"the sink gave {len(verdicts)} verdicts for {len(batch)} records")] * len(batch)
        return verdicts

    def _ended(self, task: asyncio.Task[None]) -> None:
        batch = self._flights.pop(task)
        self._in_flight -= len(batch)
        self._gauge.set(self._in_flight)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            self._closing = True
            broken = FatalError(f"{type(error).__name__}: {error}", code="sink.broken")
            self._failed(error if isinstance(error, TrunklineError) else broken)
            return
        if not self._closing:
            self._pump()

    # --- verdicts ---

    def _judge(self, delivery: Delivery, verdict: Verdict) -> None:
        self._attempts.labels(self._pipeline, type(verdict).__name__.lower()).inc()
        if isinstance(verdict, Ok):
            self._breaker.succeeded()
            self._clear_suspects()
            delivery.ticket.settle("delivered", detail=verdict.reference)
            self._release(delivery)
            return
        reason = redact(verdict.reason)
        delivery.last_reason = reason
        if delivery.first_failed_at is None:
            delivery.first_failed_at = time.time()
        if isinstance(verdict, Dead):
            self._breaker.succeeded()
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
            # Said also to the breaker: a probe without an answer must not leave it waiting for one.
            self._breaker.failed((delivery.event.topic, delivery.event.partition, delivery.event.offset))
            self._bury(delivery, "sink.unknown", f"{reason}; it may have been delivered")
            return
        self._again(delivery, verdict, reason)

    def _again(self, delivery: Delivery, verdict: Retry | Unknown, reason: str) -> None:
        """The record is tried again, or its attempts are used up."""
        after = verdict.after if isinstance(verdict, Retry) else None
        event = delivery.event
        was_open = self._breaker.is_open
        self._breaker.failed((event.topic, event.partition, event.offset))
        if after is not None:
            # Whoever names a time means the account, not the record: nothing else is sent before, and no attempt is used up.
            self._hold_until = max(self._hold_until, time.monotonic() + min(after, HOLD_LIMIT))
        if was_open or after is not None:
            delivery.attempts -= 1
        if delivery.attempts >= self._spec.retry.attempts:
            self._bury(delivery, "sink.exhausted", f"{delivery.attempts} attempts failed; the last: {reason}")
            return
        wait = max(backoff(self._spec.retry, max(delivery.attempts, 1)), min(after or 0.0, HOLD_LIMIT))
        log.info(
            "delivery will be tried again",
            pipeline=self._pipeline,
            place=event.place,
            wait=round(wait, 3),
            reason=reason,
        )
        asyncio.get_running_loop().call_later(wait, self._retry_now, delivery)

    def _retry_now(self, delivery: Delivery) -> None:
        if self._closing:
            return
        if not delivery.ticket.current:
            self._release(delivery)
            return
        self._ready.appendleft(delivery)
        self._pump()

    def _bury(self, delivery: Delivery, code: str, reason: str) -> None:
        delivery.ticket.save_dead(
            Failure("SINK", code, reason, attempts=max(delivery.attempts, 1), first_failed_at=delivery.first_failed_at)
        )
        self._release(delivery)

    def _release(self, delivery: Delivery) -> None:
        """The record is settled: the next one of its lane may go."""
        self._held -= 1
        if delivery.lane is None:
            return
        waiting = self._lanes.get(delivery.lane)
        if waiting:
            following = waiting.popleft()
            following.ready_at = time.monotonic()
            self._ready.append(following)
        else:
            self._lanes.pop(delivery.lane, None)

    # --- refusals that may be ours ---

    def _suspect(self, delivery: Delivery, verdict: Dead) -> None:
        """A 403 or 404: of one record it is the record's fault, of many in a row it is our access that is wrong."""
        self._suspects.append((delivery, verdict))
        keys = {
            suspect.event.raw_key if suspect.event.raw_key is not None else suspect.event.place
            for suspect, _ in self._suspects
        }
        if len(self._suspects) >= self._spec.access_refusals and len(keys) >= 2:
            self._closing = True
            self._failed(
                FatalError(
                    f"{len(self._suspects)} records in a row were refused; the last: {redact(verdict.reason)}",
                    hint="check the account's rights and the address; nothing was dead-lettered",
                    code="sink.access",
                )
            )
            return
        if delivery.lane is not None:
            # Its own key goes on: whatever the suspicion comes to, this record will not be delivered in this run.
            self._held += 1
            self._release(delivery)
            delivery.lane = None
        if self._suspect_timer is not None:
            self._suspect_timer.cancel()
        self._suspect_timer = asyncio.get_running_loop().call_later(SUSPECT_PATIENCE, self._after_patience)

    def _after_patience(self) -> None:
        if not self._closing and self._in_flight == 0 and not self._ready:
            self._clear_suspects()
        elif not self._closing:
            self._suspect_timer = asyncio.get_running_loop().call_later(SUSPECT_PATIENCE, self._after_patience)

    def _clear_suspects(self) -> None:
        """Something else was answered: the access is fine, so the refused records are dead letters."""
        if self._closing:
            return  # nothing is buried after the verdict that our access is wrong; what is unsettled is read again
        suspects, self._suspects = self._suspects, []
        for delivery, verdict in suspects:
            self._bury(delivery, verdict.code, redact(verdict.reason))
