"""What a sink gives away: nothing of a partition begins once another worker may have it, however slow the event loop is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from trunkline.bus.delivery.breaker import Breaker
from trunkline.bus.delivery.gates import NamedWait
from trunkline.bus.intake import Reading
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.parking.desk import DecisionDesk
from trunkline.bus.sink.accounts import AccountGates
from trunkline.bus.sink.assembly import SinkPlan, assembled
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.bus.topics import TopicPlan, ensure_topics, internal_topics
from trunkline.core.contracts import Batch, Promises, Sink
from trunkline.core.errors import RetriableError
from trunkline.core.manifests.models import BreakerSpec, DeadLetterSpec, DeliverySpec
from trunkline.core.settings import Settings
from trunkline.core.verdicts import Ok, Verdict

pytestmark = pytest.mark.kafka
DEADLINE = 60.0


class BlockingSink(Sink):
    """A plug-in that does what none may: its first call keeps the event loop until `go_on` is set."""

    settings_type = Settings
    summary = "A sink of a test."
    promises = Promises(idempotent=True)

    def __init__(self) -> None:
        super().__init__(None)
        self.begun: list[int] = []
        """The partition of each record whose call began."""
        self.blocking, self.go_on = threading.Event(), threading.Event()

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        self.begun += [event.partition for event in batch.events]
        if not self.blocking.is_set():
            self.blocking.set()
            assert self.go_on.wait(DEADLINE)
        return [Ok()] * len(batch.events)


def test_while_the_event_loop_is_blocked_a_partition_is_given_away_and_no_delivery_of_it_begins_any_more(
    kafka: Any, namespace: str, make_topic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.bus.sink.membership.LOOP_SECONDS", 0.2)
    settings, names, topic = KafkaSettings(kafka.bootstrap), Names(namespace), make_topic("orders", 2)
    plans = [TopicPlan(names.retry("out"), 2), TopicPlan(names.dead_letters("out"), 2)]
    ensure_topics(settings, [*internal_topics(names), *plans])
    writer = settings.producer()
    for number in range(40):
        writer.produce(topic, b"%d" % number, b"k%d" % number, number % 2)
    assert writer.flush(15) == 0
    patient_session(settings, names.group("out"))
    sink = BlockingSink()
    failures: list[BaseException] = []

    async def run() -> None:
        plan = SinkPlan(
            Reading(settings, names, "out", [topic], "earliest", "w"),
            sink,
            DeliverySpec.model_validate({"exhausted": "dead-letter"}),
            lambda event: (None, event.raw),
            {topic: "T"},
            account := AccountGates(NamedWait("account"), Breaker("account", BreakerSpec())),
            account.all,
            DeadLetterThreshold(DeadLetterSpec(), "out"),
        )
        await assembled(plan, asyncio.get_running_loop(), DecisionDesk()).run()

    def worker() -> None:
        try:
            asyncio.run(run())
        except RetriableError as error:
            failures.append(error)

    running = threading.Thread(target=worker)
    running.start()
    try:
        assert sink.blocking.wait(DEADLINE)
        with another_member(settings, names.group("out"), topic) as gone:
            begun = len(sink.begun)
            sink.go_on.set()
            running.join(DEADLINE)
    finally:
        sink.go_on.set()
    assert not running.is_alive()
    assert gone
    # Nothing of the partitions that went, as another worker has them; nor of others, as the pipeline has failed.
    assert sink.begun[begun:] == []
    assert [getattr(failure, "code", None) for failure in failures] == ["sink.loop_blocked"]


def patient_session(settings: KafkaSettings, group: str) -> None:
    """Gives the group the session of a real one: on a busy machine a member of a short one loses its partitions without being asked."""
    patient = ConfigEntry("consumer.session.timeout.ms", "45000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[patient])
    admin = settings.admin()  # its answers come only as long as it is referenced
    admin.incremental_alter_configs([resource])[resource].result(20)


@contextmanager
def another_member(settings: KafkaSettings, group: str, topic: str) -> Iterator[list[int]]:
    """Joins the group, and gives the partitions that came to the new member, which keeps them."""
    taken: list[int] = []

    def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        taken.extend(part.partition for part in partitions if part.topic == topic)
        settings.take(consumer, [TopicPartition(part.topic, part.partition, 0) for part in partitions])

    member = settings.consumer(group)
    try:
        member.subscribe([topic], on_assign=assigned)
        deadline = time.monotonic() + DEADLINE
        while not taken and time.monotonic() < deadline:
            member.consume(1, 0.1)
        yield taken
    finally:
        member.close()
