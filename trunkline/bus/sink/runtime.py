"""The sink runtime: a polling thread that reads, decodes and commits, and deliveries on the event loop.

The thread does no other input or output than Kafka's. What it reads it hands to `Delivering` (or `ContiguousDelivering`);
what is settled comes back through tickets into an offset tracker a partition, and the thread commits how far that is.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from trunkline.bus.budget.gate import BudgetGate
from trunkline.bus.deadletters import Failure, idempotency_key
from trunkline.bus.delivery.breaker import Breaker, BreakerState
from trunkline.bus.delivery.delivery import Delivering, in_flight_limit
from trunkline.bus.delivery.exhausted import dead_letter
from trunkline.bus.delivery.gates import Gate
from trunkline.bus.delivery.outgoing import Delivery, Ticket
from trunkline.bus.delivery.tickets import SinkTicket, Tickets, Work
from trunkline.bus.intake import POLL_SECONDS, Assigned, Intake, Partition, Reading
from trunkline.bus.kafka import LazyProducer, headers_of, offset_of, translate
from trunkline.bus.ledger import Ledger
from trunkline.bus.parking.decisions import Decision
from trunkline.bus.parking.orders import Order
from trunkline.bus.parking.park import Park
from trunkline.bus.parking.parking import Parking
from trunkline.bus.sink.contiguous import ContiguousDelivering
from trunkline.bus.state import Changelog
from trunkline.bus.stream.transform import with_envelope
from trunkline.bus.threads import in_own_thread
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.contracts import Sink
from trunkline.core.envelope import CE_SPECVERSION
from trunkline.core.errors import FatalError, RejectedError, RetriableError, TrunklineError
from trunkline.core.event import Event
from trunkline.core.log import get_logger
from trunkline.core.manifests.models import DeliverySpec
from trunkline.core.metrics import counter, gauge

log = get_logger(__name__)
COMMIT_SECONDS = 0.2
READ_AT_ONCE = 500
FIRST_GUESS = 2**20
"""Bytes of a record before one was read: Kafka's own limit by default."""
ROOM_SECONDS = 0.01
"""How long reading waits for deliveries to make room."""
FULL_SECONDS = 1.0
"""How long reading waits for room without polling: then partitions are paused."""
DRAIN_SECONDS = 20.0
REVOKE_SECONDS = 10.0

DecoderSource = Callable[[Event], tuple[Any, Any]]
"""Decodes an event's raw value: gives schema and datum. Raises RejectedError."""


class SinkRuntime:
    """Runs one sink on one worker."""

    def __init__(
        self,
        reading: Reading,
        sink: Sink,
        spec: DeliverySpec,
        decode: DecoderSource,
        *,
        topic_ids: Mapping[str, str],
        gates: Sequence[Gate],
        threshold: DeadLetterThreshold,
        when: Callable[[Any, Any], Any] | None = None,
        parked: Changelog | None = None,
    ) -> None:
        self._reading = reading
        self._names = reading.names
        self._pipeline = pipeline = reading.pipeline
        self._sink = sink
        self._gates = gates
        self._threshold = threshold
        self._spec = spec
        self._decode = decode
        self._topic_ids = topic_ids
        self._when = when
        self._parked = parked
        self._parking: Parking | None = None
        self._park: Park | None = None
        self._stop = threading.Event()
        self._paused = threading.Event()
        self._backlogged = False
        self._room_at = time.monotonic()
        """When there was room for more records last."""
        self._was_paused = False
        self._handed = self._taken = (0, 0)
        """Records and bytes that the polling thread gave to the event loop, and that the event loop took."""
        self._record_size = FIRST_GUESS
        """Bytes of the largest record read lately."""
        self._failure: TrunklineError | None = None
        self._requests: queue.SimpleQueue[tuple[Partition, int, int, Future[bool]]] = queue.SimpleQueue()
        self._last_commit = 0.0
        self._producer = LazyProducer(reading.settings)
        self._tickets = Tickets(reading.names, pipeline, reading.worker, self._producer, self._fail)
        self._read = counter("trunkline_records_in_total").labels(pipeline)
        most = sink.promises.max_batch if spec.batch.count is None else min(spec.batch.count, sink.promises.max_batch)
        self._most = most
        self._high_water = max(1000, 4 * in_flight_limit(sink, spec), 2 * most)

    # --- called from the event loop ---

    async def run(self) -> None:
        """Delivers until `stop`. The sink is open already. Raises `TrunklineError` when the pipeline can't go on."""
        self._loop = asyncio.get_running_loop()
        if self._sink.promises.contiguous:
            self._contiguous: ContiguousDelivering | None = ContiguousDelivering(
                self._sink,
                self._spec,
                self._pipeline,
                gates=self._gates,
                commit_plan=self._commit_plan,
                failed=self._fail,
            )
            self._delivering: Delivering | ContiguousDelivering = self._contiguous
        else:
            self._contiguous = None
            exhausted = self._begin_parking(self._parked) if self._parked is not None else dead_letter
            self._delivering = Delivering(
                self._sink, self._spec, self._pipeline, gates=self._gates, failed=self._fail, exhausted=exhausted
            )
            if self._parking is not None:
                self._parking.attach(self._delivering.submit)
        delivering = self._delivering
        gauge("trunkline_held_records").labels(self._pipeline).set_function(lambda: delivering.held)
        gauge("trunkline_held_bytes").labels(self._pipeline).set_function(lambda: delivering.held_bytes)
        await in_own_thread(self._run_thread, f"sink-{self._pipeline}")
        if self._failure is not None:
            raise self._failure

    def _begin_parking(self, changelog: Changelog) -> Parking:
        limit = in_flight_limit(self._sink, self._spec)
        orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        parking = Parking(self._spec, self._pipeline, limit=limit, ask=orders.put)
        park = Park(
            self._reading,
            changelog,
            self._tickets,
            parking,
            orders,
            self,
            attempts=self._spec.retry.attempts,
            topic_ids=self._topic_ids,
        )
        self._parking, self._park = parking, park
        return parking

    def stop(self) -> None:
        """Asks `run` to settle what is in flight, commit, and return."""
        self._stop.set()

    def pause(self) -> None:
        """Stops reading and delivering; partitions stay assigned."""
        self._paused.set()
        self._loop.call_soon_threadsafe(self._delivering.pause, True)

    def resume(self) -> None:
        """Goes on."""
        self._paused.clear()
        self._loop.call_soon_threadsafe(self._delivering.pause, False)

    @property
    def ledgers(self) -> Mapping[Partition, Ledger]:
        """The ledger of each partition that is ours, as far as offsets can be committed."""
        return self._tickets.ledgers

    @property
    def positions(self) -> Mapping[Partition, int]:
        """The offset to commit of each partition that is ours."""
        return self._tickets.positions

    @property
    def breaker(self) -> BreakerState | None:
        """How the breaker of the account stands; None where the pipeline passes none."""
        return next((gate.state for gate in self._gates if isinstance(gate, Breaker)), None)

    def decide(self, decision: Decision) -> None:
        """A person decided on a parked key; the worker that has its partition carries it out. On the event loop."""
        if self._parking is not None:
            self._parking.decide(decision)

    @property
    def parked(self) -> tuple[int, int]:
        """How many records are parked on this worker, and how many keys."""
        return (self._parking.records, self._parking.keys) if self._parking is not None else (0, 0)

    @property
    def waiting(self) -> str:
        """What budget the pipeline waits for, in words; empty where it waits for none. Only on the event loop."""
        return next((gate.waiting for gate in self._gates if isinstance(gate, BudgetGate)), "")

    def _fail(self, error: TrunklineError) -> None:
        if self._failure is None:
            self._failure = error
        self._stop.set()

    async def _commit_plan(self, partition: Partition, first: int, last: int) -> bool:
        """Has the polling thread commit the plan, and waits for it."""
        answer: Future[bool] = Future()
        self._requests.put((partition, first, last, answer))
        return await asyncio.wrap_future(answer)

    # --- the polling thread ---

    def _run_thread(self) -> None:
        intake = Intake(self._reading, self)
        self._intake = intake
        try:
            while not self._stop.is_set():
                self._serve()
                if self._full():
                    self._stop.wait(ROOM_SECONDS)
                    self._commit_if_due()
                    continue
                self._apply_pause()
                messages = intake.poll(max(1, self._room()), self._poll_seconds())
                if messages:
                    self._take(messages)
                self._commit_if_due()
        except KafkaException as error:
            self._fail(translate(error, f"the sink {self._pipeline} can't go on"))
        except TrunklineError as error:
            self._fail(error)
        except Exception as error:
            log.exception("the sink runtime broke", pipeline=self._pipeline)
            self._fail(FatalError(f"{type(error).__name__}: {error}", code="pipeline.broken"))
        finally:
            self._end()

    def _poll_seconds(self) -> float:
        """Not long while deliveries are held: what they settle is to be committed, and what they ask to be answered."""
        if not self._requests.empty() or (self._park is not None and self._park.waiting):
            return 0.0
        parked = self._parking is not None and self._parking.holding
        return POLL_SECONDS if self._held()[0] or parked else self._intake.patience

    def _held(self) -> tuple[int, int]:
        """Records and bytes that deliveries hold, with those on their way to the event loop or into the park."""
        handed, taken, delivering = self._handed, self._taken, self._delivering
        pending = self._parking.pending if self._parking is not None else 0
        return delivering.held + pending + handed[0] - taken[0], delivering.held_bytes + handed[1] - taken[1]

    def _end(self) -> None:
        """Intake ends, what is in flight settles to a deadline, offsets are committed, the group is left."""
        try:
            if self._parking is not None:
                self._on_loop(self._parking.close)
            drained = asyncio.run_coroutine_threadsafe(self._delivering.drain(DRAIN_SECONDS), self._loop)
            self._serve_until(drained.done, DRAIN_SECONDS + 10)
            self._producer.flush(10)
            self._commit()
        except (KafkaException, TrunklineError) as error:
            log.warning("the last offsets were not committed", pipeline=self._pipeline, error=str(error))
        finally:
            self._intake.close()
            if self._park is not None:
                self._park.close()
            self._producer.flush(5)

    def _serve(self) -> None:
        """Answers what the event loop asks, and takes in what the broker acknowledged."""
        self._producer.poll(0)
        while not self._requests.empty():
            partition, first, last, answer = self._requests.get()
            if answer.set_running_or_notify_cancel():
                answer.set_result(self._write_plan(partition, first, last))
        if self._park is not None:
            self._park.serve()

    def _serve_until(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            self._serve()
            self._producer.poll(0.02)
        self._serve()
        return done()

    def _write_plan(self, partition: Partition, first: int, last: int) -> bool:
        work = self._tickets.works.get(partition)
        if work is None or not work.current:
            return False
        if not self._settled_before(work, first):
            self._fail(
                RetriableError(f"the dead letters before {partition[0]}[{partition[1]}]@{first} are not acknowledged")
            )
            return False
        try:
            self._intake.consumer.commit(offsets=[self._tickets.planned(work, last)], asynchronous=False)
        except KafkaException as error:
            if _not_ours(error):
                return False
            self._fail(translate(error, "a planned range can't be committed"))
            return False
        return True

    def _settled_before(self, work: Work, first: int) -> bool:
        """Waits until everything before a range is settled and counted: only dead letters on their way can be open there.

        A commit that stood before an earlier range would have that one built again after a crash, as a part of this one.
        """
        deadline = time.monotonic() + DRAIN_SECONDS
        while not self._tickets.settled_before(work, first):
            if time.monotonic() > deadline or self._failure is not None:
                return False
            self._producer.poll(0.02)
        return True

    def _full(self) -> bool:
        """Whether to read nothing for the moment, because enough is held.

        For a moment only: Kafka's client answers a rebalance while it is polled. Then partitions are paused, which costs a new
        fetch, and polling goes on.
        """
        now = time.monotonic()
        # Once paused, half of what is held must go first: else each record that a slow system takes would cost a fetch.
        if self._room(portion=2 if self._backlogged else 1) > 0:
            self._room_at = now
        self._backlogged = now - self._room_at > FULL_SECONDS
        return self._room_at != now and not self._backlogged

    def _room(self, portion: int = 1) -> int:
        """How many more records may be read until the bounds, or that part of them, are reached."""
        # I25: what a sink holds is bounded, in records and in bytes, however slow its other side is.
        records, size = self._high_water, min(self._spec.hold, self._reading.settings.shares.held)
        if self._contiguous is not None:
            # A range must be read whole, in every partition, before any of it can go; one more is made meanwhile.
            partitions = max(1, len(self._tickets.works))
            records = max(1000, self._most * (partitions + 1))
            size = max(size, 2 * self._spec.batch.bytes) * partitions
        held, held_bytes = self._held()
        left, left_bytes = records // portion - held, size // portion - held_bytes
        if left <= 0 or left_bytes <= 0:
            return 0
        return min(READ_AT_ONCE, left, max(1, left_bytes // self._record_size))

    def _apply_pause(self) -> None:
        wanted = self._paused.is_set() or self._backlogged
        partitions = [TopicPartition(*partition) for partition in self._tickets.works]
        if partitions and (wanted or self._was_paused):
            (self._intake.consumer.pause if wanted else self._intake.consumer.resume)(partitions)
        self._was_paused = wanted

    def _take(self, messages: list[Message]) -> None:
        deliveries: list[Delivery] = []
        read_to: dict[Partition, int] = {}
        for message in messages:
            partition = (message.topic() or "", message.partition() or 0)
            offset = offset_of(message)
            work = self._tickets.works.get(partition)
            if work is None or offset < work.tracker.commit:
                continue
            with self._tickets.lock:
                work.tracker.add(offset)
            read_to[partition] = offset
            delivery = self._prepared(message, work, offset)
            if delivery is not None:
                deliveries.append(delivery)
        self._read.inc(len(messages))
        self._record_size = max(self._record_size // 2, *(len(message) for message in messages), 1)
        if self._contiguous is not None:
            self._hand_over(deliveries, self._contiguous.submit, deliveries, read_to)
        elif deliveries:
            assert isinstance(self._delivering, Delivering)
            self._hand_over(deliveries, self._delivering.submit, deliveries)

    def _hand_over(self, deliveries: Sequence[Delivery], submit: Callable[..., None], *arguments: object) -> None:
        """Gives records to the event loop; until it has taken them they count as held here."""
        records, size = len(deliveries), sum(delivery.size for delivery in deliveries)
        self._handed = (self._handed[0] + records, self._handed[1] + size)

        def taken() -> None:
            submit(*arguments)
            self._taken = (self._taken[0] + records, self._taken[1] + size)

        self._loop.call_soon_threadsafe(taken)

    def _prepared(self, message: Message, work: Work, offset: int) -> Delivery | None:
        """The record decoded and ready for the sink; None where it is settled already (filtered, or on its way to the dead letters)."""
        topic, partition = work.partition
        raw = message.value()
        event = Event(
            None,
            raw=raw,
            raw_key=message.key(),
            headers=headers_of(message),
            topic=topic,
            topic_id=self._topic_ids.get(topic, ""),
            partition=partition,
            offset=offset,
            timestamp=message.timestamp()[1],
        )
        if not event.headers or event.headers[0][0] != CE_SPECVERSION:
            event.headers = with_envelope(event)
        ticket = SinkTicket(work, message, offset, event.correlation_id, self._tickets)
        if self._park is not None and self._park.knows(work.partition, offset):
            ticket.settle("parked", detail="read again")
            return None
        try:
            if raw is None:
                raise RejectedError(f"a record without a value (a tombstone) in {topic}", code="record.tombstone")
            event.schema, event.value = self._decode(event)
            if self._when is not None and self._when(event.value, event) is not True:
                ticket.settle("filtered")
                return None
        except RejectedError as error:
            ticket.save_dead(Failure("DECODE" if event.schema is None else "FILTER", error.code, str(error)))
            return None
        event.idempotency_key = idempotency_key(self._names.namespace, self._pipeline, event)
        return Delivery(event, ticket, len(raw))

    # --- what the park asks for ---

    def decode(self, event: Event) -> None:
        """See `Surroundings`."""
        event.schema, event.value = self._decode(event)
        if not event.headers or event.headers[0][0] != CE_SPECVERSION:
            event.headers = with_envelope(event)
        event.idempotency_key = idempotency_key(self._names.namespace, self._pipeline, event)

    def commit_now(self) -> None:
        """See `Surroundings`."""
        self._commit()

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """See `Surroundings`."""
        self._loop.call_soon_threadsafe(function, *arguments)

    @property
    def group_member(self) -> Consumer:
        """See `Surroundings`."""
        return self._intake.consumer

    # --- committing ---

    def _commit_if_due(self) -> None:
        now = time.monotonic()
        if now - self._last_commit >= COMMIT_SECONDS:
            try:
                self._commit(all_of_them=False)
            except KafkaException as error:
                if not isinstance(translate(error, ""), RetriableError):
                    raise
                log.warning("offsets will be committed later", pipeline=self._pipeline, reason=error.args[0].str())
            self._last_commit = time.monotonic()
            self._threshold.note(*self._tickets.ended())

    def _commit(self, *, all_of_them: bool = True, only: Sequence[Partition] | None = None) -> None:
        """Commits how far each partition is settled without a gap."""
        commits = self._tickets.due(all_of_them=all_of_them, only=only)
        if not commits:
            return
        try:
            # I28: each commit is waited for. Of two under way, librdkafka may send the older one again behind the newer one when
            # the broker comes back, and the group would go backwards.
            done = self._intake.consumer.commit(offsets=commits, asynchronous=False)
        except KafkaException as error:
            if not _not_ours(error):
                raise
        else:
            self._tickets.committed(done or [])

    # --- the intake's member ---

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Takes partitions up where the group left them."""
        self._tickets.take(partitions)
        if self._park is not None:
            self._park.assigned(partitions)
        if self._contiguous is not None:
            for one in partitions:
                self._loop.call_soon_threadsafe(
                    self._contiguous.begin, one.partition, one.plan.last if one.plan else None
                )
        log.info(
            "assigned",
            pipeline=self._pipeline,
            partitions=[f"{one.partition[0]}[{one.partition[1]}]" for one in partitions],
        )

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Lets what is in flight end, to a deadline; commits; forgets the partitions."""
        mine = set(partitions)

        def of_these(ticket: Ticket) -> bool:
            return ticket.belongs(mine)

        if self._parking is not None:
            self._on_loop(self._parking.withdraw, {number for _, number in partitions})
        self._on_loop(self._delivering.forget, of_these)
        self._serve_until(lambda: not self._delivering.under_way(of_these), REVOKE_SECONDS)
        self._producer.flush(5)
        self._commit(only=partitions)
        self._let_go(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Another member has them already: nothing is committed."""
        self._let_go(partitions)

    def _let_go(self, partitions: Sequence[Partition]) -> None:
        self._tickets.let_go(partitions)
        if self._park is not None and self._parking is not None:
            numbers = {number for _, number in partitions}
            self._park.let_go(numbers)
            self._on_loop(self._parking.forget, numbers)
        self._on_loop(self._delivering.forget, lambda ticket: not ticket.current)
        if self._contiguous is not None:
            for partition in partitions:
                self._loop.call_soon_threadsafe(self._contiguous.end, partition)
        left = sorted({number for _, number in partitions} & {number for _, number in self._tickets.works})
        if self._park is not None and left and not self._stop.is_set():
            # Their park is closed, and another worker may have it: what is still read here could not be held back.
            raise RetriableError(f"the inputs' partitions {left} went to different workers", code="parked.divided")

    def _on_loop(self, function: Callable[..., object], *arguments: object) -> None:
        """Runs a function on the event loop and waits until it ran, serving requests meanwhile."""
        ran = threading.Event()

        def run() -> None:
            try:
                function(*arguments)
            finally:
                ran.set()

        self._loop.call_soon_threadsafe(run)
        self._serve_until(ran.is_set, 5.0)


def _not_ours(error: KafkaException) -> bool:
    """Whether a commit failed because the partition or the membership is gone: normal after a rebalance."""
    return error.args[0].code() in {
        KafkaError._STATE,  # noqa: SLF001
        KafkaError._NO_OFFSET,  # noqa: SLF001
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
