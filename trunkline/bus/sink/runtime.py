"""The sink runtime: a polling thread that reads, decodes and commits, and deliveries on the event loop.

The thread does no other input or output than Kafka's. How much it reads `Room` says; what it reads `Arrivals` prepares, and it
hands that to `Delivering` (or `ContiguousDelivering`). What is settled comes back through tickets into an offset tracker a
partition, and `Committing` commits how far that is.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message

from trunkline.bus.budget.gate import BudgetGate
from trunkline.bus.delivery.breaker import Breaker, BreakerState
from trunkline.bus.delivery.delivery import Delivering, in_flight_limit
from trunkline.bus.delivery.exhausted import dead_letter
from trunkline.bus.delivery.gates import Gate
from trunkline.bus.delivery.outgoing import Delivery, Ticket
from trunkline.bus.delivery.tickets import Tickets
from trunkline.bus.intake import POLL_SECONDS, Assigned, Intake, Partition, Reading
from trunkline.bus.kafka import LazyProducer, offset_of, translate
from trunkline.bus.ledger import Ledger
from trunkline.bus.parking.decisions import Decision
from trunkline.bus.parking.orders import Order
from trunkline.bus.parking.park import Park
from trunkline.bus.parking.parking import Parking
from trunkline.bus.sink.arrivals import Arrivals, DecoderSource
from trunkline.bus.sink.committing import DRAIN_SECONDS, Committing
from trunkline.bus.sink.contiguous import ContiguousDelivering
from trunkline.bus.sink.room import Room, bound_of
from trunkline.bus.state import Changelog
from trunkline.bus.threads import in_own_thread
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.contracts import Sink
from trunkline.core.errors import FatalError, RetriableError, TrunklineError
from trunkline.core.event import Event
from trunkline.core.log import get_logger
from trunkline.core.manifests.models import DeliverySpec
from trunkline.core.metrics import counter, gauge

log = get_logger(__name__)
ROOM_SECONDS = 0.01
"""How long reading waits for deliveries to make room."""
REVOKE_SECONDS = 10.0


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
        self._spec = spec
        self._decode = decode
        self._topic_ids = topic_ids
        self._when = when
        self._parked = parked
        self._parking: Parking | None = None
        self._park: Park | None = None
        self._stop = threading.Event()
        self._paused = threading.Event()
        self._failure: TrunklineError | None = None
        self._producer = LazyProducer(reading.settings)
        self._tickets = Tickets(reading.names, pipeline, reading.worker, self._producer, threshold, self._fail)
        self._read = counter("trunkline_records_in_total").labels(pipeline)
        self._committing = Committing(
            pipeline,
            self._tickets,
            self._producer,
            group_member=lambda: self._intake.consumer,
            failed=self._fail,
            stopped=lambda: self._failure is not None,
        )

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
                commit_plan=self._committing.plan,
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
        self._arrivals = Arrivals(
            self._reading.names.namespace,
            self._pipeline,
            self._decode,
            self._tickets,
            topic_ids=self._topic_ids,
            when=self._when,
            parked=self._park.knows if self._park is not None else None,
        )
        bound = bound_of(self._sink, self._spec, self._reading.settings.shares.held)
        self._room = Room(bound, self._holding, self._tickets.works)
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
            # No call begins any more; those under way end, and count.
            self._loop.call_soon_threadsafe(self._delivering.pause, True)
        self._stop.set()

    # --- the polling thread ---

    def _run_thread(self) -> None:
        intake = Intake(self._reading, self)
        self._intake = intake
        try:
            while not self._stop.is_set():
                self._serve()
                if self._room.full():
                    self._stop.wait(ROOM_SECONDS)
                    self._committing.commit_if_due()
                    continue
                self._room.apply_pause(intake.consumer, asked=self._paused.is_set())
                messages = intake.poll(max(1, self._room.left()), self._poll_seconds())
                if messages:
                    self._take(messages)
                self._committing.commit_if_due()
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
        if self._committing.asked or (self._park is not None and self._park.waiting):
            return 0.0
        parked = self._parking is not None and self._parking.holding
        return POLL_SECONDS if self._room.held[0] or parked else self._intake.patience

    def _holding(self) -> tuple[int, int]:
        """Records and bytes that deliveries hold, with the records on their way into the park."""
        pending = self._parking.pending if self._parking is not None else 0
        return self._delivering.held + pending, self._delivering.held_bytes

    def _end(self) -> None:
        """Intake ends, what is in flight settles to a deadline, offsets are committed, the group is left."""
        try:
            if self._parking is not None:
                self._on_loop(self._parking.close)
            drained = asyncio.run_coroutine_threadsafe(self._delivering.drain(DRAIN_SECONDS), self._loop)
            self._serve_until(drained.done, DRAIN_SECONDS + 10)
            self._producer.flush(10)
            self._committing.commit()
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
        self._committing.answer()
        if self._park is not None:
            self._park.serve()

    def _serve_until(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            self._serve()
            self._producer.poll(0.02)
        self._serve()
        return done()

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
            delivery = self._arrivals.prepared(message, work, offset)
            if delivery is not None:
                deliveries.append(delivery)
        self._read.inc(len(messages))
        self._room.read(messages)
        if self._contiguous is not None:
            self._hand_over(deliveries, self._contiguous.submit, deliveries, read_to)
        elif deliveries:
            assert isinstance(self._delivering, Delivering)
            self._hand_over(deliveries, self._delivering.submit, deliveries)

    def _hand_over(self, deliveries: Sequence[Delivery], submit: Callable[..., None], *arguments: object) -> None:
        """Gives records to the event loop; until it has taken them they count as held here."""
        taken = self._room.hand(deliveries)

        def give() -> None:
            submit(*arguments)
            taken()

        self._loop.call_soon_threadsafe(give)

    # --- what the park asks for ---

    def decode(self, event: Event) -> None:
        """See `Surroundings`."""
        self._arrivals.decode(event)

    def commit_now(self) -> None:
        """See `Surroundings`."""
        self._committing.commit()

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """See `Surroundings`."""
        self._loop.call_soon_threadsafe(function, *arguments)

    @property
    def group_member(self) -> Consumer:
        """See `Surroundings`."""
        return self._intake.consumer

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
        self._committing.commit(only=partitions)
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
