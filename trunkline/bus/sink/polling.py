"""A sink's polling thread: reads, has what it read prepared, hands it to the deliveries, and commits what they settled.

It does no other input or output than Kafka's. How much it reads `Room` says; what it reads `Arrivals` prepares.
"""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import KafkaException, Message

from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.intake import POLL_SECONDS, Intake, Partition
from trunkline.bus.kafka import offset_of, translate
from trunkline.bus.sink.arrivals import Arrivals
from trunkline.bus.sink.committing import DRAIN_SECONDS
from trunkline.bus.sink.membership import Group, Membership
from trunkline.bus.sink.parts import Parts
from trunkline.bus.sink.room import Room
from trunkline.core.errors import DefectError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.metrics import counter

log = get_logger(__name__)
ROOM_SECONDS = 0.01
"""How long reading waits for deliveries to make room."""


class PollingThread:
    """The work of the thread: `run` is called on it, nothing else may be called from elsewhere."""

    def __init__(self, parts: Parts, group: Group, membership: Membership, arrivals: Arrivals, room: Room) -> None:
        self._pipeline = parts.pipeline
        self._tickets = parts.tickets
        self._deliveries = parts.deliveries
        self._loop = parts.loop
        self._lifecycle = parts.lifecycle
        self._committing = parts.committing
        self._upkeep = parts.upkeep
        self._parking = parts.parking
        self._park = parts.park
        self._group = group
        self._membership = membership
        self._arrivals = arrivals
        self._room = room
        self._read = counter("trunkline_records_in_total").labels(parts.pipeline)

    def run(self) -> None:
        """Reads until the lifecycle says stop; then ends what is under way. A failure is noted there."""
        intake = self._group.join(self._membership)
        stop, paused, doubt = self._lifecycle.stop, self._lifecycle.paused, self._lifecycle.topics_in_doubt
        try:
            while not stop.is_set():
                self._upkeep.serve()
                if doubt.is_set():
                    doubt.clear()
                    intake.check_topics()
                if self._room.full():
                    stop.wait(ROOM_SECONDS)
                    self._committing.commit_if_due()
                    continue
                self._room.apply_pause(intake.consumer, asked=paused.is_set())
                messages = intake.poll(max(1, self._room.left()), self._patience(intake))
                if messages:
                    self._take(messages)
                self._committing.commit_if_due()
        except KafkaException as error:
            self._lifecycle.fail(translate(error, f"the sink {self._pipeline} can't go on"))
        except TrunklineError as error:
            self._lifecycle.fail(error)
        except Exception as error:
            log.exception("the sink runtime broke", pipeline=self._pipeline)
            self._lifecycle.fail(DefectError(f"{type(error).__name__}: {error}", code="pipeline.broken"))
        finally:
            self._end(intake)

    def _patience(self, intake: Intake) -> float:
        """Not long while deliveries are held: what they settle is to be committed, and what they ask to be answered."""
        if self._upkeep.pressing:
            return 0.0
        parked = self._parking is not None and self._parking.holding
        return POLL_SECONDS if self._room.held[0] or parked else intake.patience

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
        if read_to:
            self._hand_over(deliveries, read_to)

    def _hand_over(self, deliveries: Sequence[Delivery], read_to: dict[Partition, int]) -> None:
        """Gives records to the event loop; until it has taken them they count as held here."""
        taken = self._room.hand(deliveries)

        def give() -> None:
            self._deliveries.submit(deliveries, read_to)
            taken()

        self._loop.post(give)

    def _end(self, intake: Intake) -> None:
        """Intake ends, what is in flight settles to a deadline, offsets are committed, the group is left."""
        try:
            if self._parking is not None:
                self._loop.post(self._parking.close)
            drained = self._loop.begin(self._deliveries.drain(DRAIN_SECONDS))
            self._upkeep.serve_until(drained.done, DRAIN_SECONDS + 10)
            self._upkeep.flush(10)
            self._committing.commit()
        except (KafkaException, TrunklineError) as error:
            log.warning("the last offsets were not committed", pipeline=self._pipeline, error=str(error))
        finally:
            try:
                intake.close()
            finally:
                if self._park is not None:
                    self._park.close()
            self._upkeep.flush(5)
