"""Records that a row writes to a topic by itself, past every source: the door is the topic, the broker's answer acknowledges.

For rows that are about what sinks and streams do with what they read, byte for byte.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, Message

from tests.chaos.history import Acknowledged, Fact, Headers, Placed, Sent
from tests.chaos.scene import EVENT
from tests.integration.bus_harness import Registry
from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.kafka import KafkaSettings, offset_of, produce
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema

ID = "event-id"
"""The header that names a record, also where its value says nothing."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record to be written. `key` and `sequence` say what order it must keep; it is written under `raw_key`."""

    id: str
    value: bytes | None
    key: str = ""
    sequence: int = 0
    raw_key: bytes | None = None
    headers: Headers = ()

    @property
    def all_headers(self) -> Headers:
        """Its headers, with its id before them."""
        return ((ID, self.id.encode()), *self.headers)


@dataclass
class Door:
    """Writes records to a topic and remembers what became of each. Its calls block."""

    kafka: KafkaSettings
    topic: str
    facts: list[Fact] = field(default_factory=list)
    failures: list[KafkaError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._producer = self.kafka.producer()

    def send(self, record: Record, partition: int = -1) -> None:
        """Hands a record to the producer."""
        headers = record.all_headers
        sent_at = time.time()
        self.facts.append(
            Sent(record.id, self.topic, record.key, record.sequence, sent_at, record.value, record.raw_key, headers)
        )

        def confirmed(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.failures.append(error)
                return
            self.facts.append(Acknowledged(record.id, self.topic, time.time(), by="broker"))
            place = (self.topic, message.partition() or 0, offset_of(message))
            self.facts.append(Placed(record.id, *place, sent_at))

        produce(
            self._producer,
            self.topic,
            record.value,
            record.raw_key,
            list(headers),
            partition=partition,
            on_delivery=confirmed,
        )
        self._producer.poll(0)

    def write(self, records: Iterable[Record]) -> None:
        """Writes records and waits until the broker has all of them."""
        for record in records:
            self.send(record)
        self.finish()

    def finish(self) -> None:
        """Waits until the broker has what was sent."""
        left = self._producer.flush(60)
        assert not left, f"{left} records were not taken by the broker"
        assert not self.failures, self.failures[0]

    def places(self) -> Iterator[Placed]:
        """Where the records are."""
        return (fact for fact in self.facts if isinstance(fact, Placed))


@asynccontextmanager
async def registry() -> AsyncIterator[tuple[str, RegistryClient]]:
    """A schema registry in this process: its URL, for the option `--registry` of workers, and a client of it."""
    server = Registry()
    await server.start()
    client = RegistryClient(server.url)
    try:
        yield server.url, client
    finally:
        client.close()
        await server.stop()


async def event_encoder(client: RegistryClient, topic: str) -> Encoder:
    """Encodes the campaign's events for a topic."""
    return Encoder(await asyncio.to_thread(client.register, f"{topic}-value", Schema(EVENT)))


def letter_id(letter: DeadLetter) -> str:
    """The id of the record in a dead letter, by the header it was written with."""
    return letter.header(ID)
