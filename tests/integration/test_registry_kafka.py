"""The registry over Kafka: confluent-kafka's own client and serializers, restarts, and several registries on one topic."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from confluent_kafka.schema_registry import Schema as WireSchema
from confluent_kafka.schema_registry import SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions
from trunkline.core.errors import ConfigurationError, RetriableError
from trunkline.kafkaclient import AdminClient
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.kafka_store import KafkaStore, topic_name
from trunkline.registry.rules import register
from trunkline.registry.schema import Schema
from trunkline.registry.service import serve_registry
from trunkline.registry.topic import topic_id

T = TypeVar("T")
pytestmark = pytest.mark.kafka

FLIGHT = {
    "type": "record",
    "name": "flights.Departed",
    "fields": [{"name": "carrier", "type": "string"}, {"name": "dep_delay", "type": ["null", "int"], "default": None}],
}
EVENT = {"carrier": "UA", "dep_delay": 12}
VALUE = SerializationContext("flights.departed", MessageField.VALUE)


@asynccontextmanager
async def serving(bootstrap: str, topic: str) -> AsyncIterator[str]:
    """A registry of its own on that topic; its URL."""
    store = KafkaStore({"bootstrap.servers": bootstrap}, topic)
    await store.start()
    listener = await serve_registry(store)
    try:
        yield listener.url
    finally:
        await listener.stop()
        await store.close()


async def apart(call: Callable[..., T], *args: Any, **options: Any) -> T:
    """A blocking call beside the event loop that serves it."""
    return await asyncio.to_thread(call, *args, **options)


async def test_confluents_client_and_serializers_work_before_and_after_a_restart(kafka: Any, namespace: str) -> None:
    topic = topic_name(namespace)
    text = json.dumps(FLIGHT)
    async with serving(kafka.bootstrap, topic) as url:

        def first() -> bytes | None:
            with SchemaRegistryClient({"url": url}) as client:
                made = AvroSerializer(client, text)(EVENT, VALUE)
                assert AvroDeserializer(client)(made, VALUE) == EVENT
                client.set_compatibility("flights.departed-value", "FULL")
                return made

        value = await apart(first)
        assert value is not None

    async with serving(kafka.bootstrap, topic) as url:

        def again() -> None:
            with SchemaRegistryClient({"url": url}) as client:
                assert AvroDeserializer(client)(value, VALUE) == EVENT
                assert AvroSerializer(client, text)(EVENT, VALUE) == value
                assert client.get_subjects() == ["flights.departed-value"]
                assert client.get_compatibility("flights.departed-value") == "FULL"

        await apart(again)


async def test_our_codec_and_confluents_read_each_others_values(kafka: Any, namespace: str) -> None:
    async with serving(kafka.bootstrap, topic_name(namespace)) as url:

        def both() -> None:
            ours = RegistryClient(url)
            schema = ours.register("flights.departed-value", Schema(FLIGHT))
            with SchemaRegistryClient({"url": url}) as client:
                theirs = AvroSerializer(client, json.dumps(FLIGHT))(EVENT, VALUE)
                assert theirs == Encoder(schema).encode(EVENT)
                assert AvroDeserializer(client)(Encoder(schema).encode(EVENT), VALUE) == EVENT
            assert Decoder(ours).decode(theirs or b"") == (schema, EVENT)
            ours.close()

        await apart(both)


async def test_two_registries_on_one_topic_never_give_one_id_to_two_schemas(kafka: Any, namespace: str) -> None:
    stores = [KafkaStore({"bootstrap.servers": kafka.bootstrap}, topic_name(namespace)) for _ in range(2)]
    await asyncio.gather(*(store.start() for store in stores))

    def schema(name: str) -> str:
        return json.dumps({"type": "record", "name": name, "fields": []})

    try:
        mixed = await asyncio.gather(
            *(
                store.write(register(f"s{who}-{n}", schema(f"R{who}_{n}")))
                for n in range(6)
                for who, store in enumerate(stores)
            ),
            *(store.write(register(f"both-{n}", schema(f"Both{n}"))) for n in range(3) for store in stores),
        )
        ids = {each.schema.text: {other.id for other in mixed if other.schema == each.schema} for each in mixed}
        assert all(len(found) == 1 for found in ids.values())
        assert len({next(iter(found)) for found in ids.values()}) == len(ids) == 15
        for store in stores:
            await store.refresh()
        first, second = (store.view(lambda state: (dict(state.by_id), state.highest_id)) for store in stores)
        assert first == second
        assert first[1] == 15
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def test_of_two_registries_that_write_at_once_none_says_so_in_the_log(
    kafka: Any, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    stores = [KafkaStore({"bootstrap.servers": kafka.bootstrap}, topic_name(namespace)) for _ in range(2)]
    await asyncio.gather(*(store.start() for store in stores))
    try:
        for round_ in range(3):
            for store in stores:
                await store.write(register(f"s{round_}", json.dumps({"type": "record", "name": "R", "fields": []})))
                await store.write(register(f"s{round_}-{id(store)}", '"int"'))
    finally:
        await asyncio.gather(*(store.close() for store in stores))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_registry_waits_for_a_topic_that_another_one_is_creating(
    kafka: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, appears = topic_name(namespace), threading.Event()

    class Late(AdminClient):
        """Is told that the topic exists, as where two create it at once, before the broker shows it."""

        def create_topics(self, new_topics: list[NewTopic], **options: Any) -> Any:
            def create() -> None:
                appears.wait()
                super(Late, self).create_topics(new_topics, **options)[topic].result(30)

            self.creating = threading.Thread(target=create)
            self.creating.start()
            taken: Future[None] = Future()
            taken.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS)))
            return {topic: taken}

        def describe_configs(self, *arguments: Any, **options: Any) -> Any:
            asked = super().describe_configs(*arguments, **options)
            next(iter(asked.values())).add_done_callback(lambda _answered: appears.set())
            return asked

    monkeypatch.setattr("trunkline.registry.topic.AdminClient", Late)
    store = KafkaStore({"bootstrap.servers": kafka.bootstrap}, topic)
    await store.start()
    assert appears.is_set(), "it began before the broker showed the topic"
    assert store.view(lambda state: list(state.subjects)) == []
    await store.close()


@pytest.mark.slow
async def test_a_registry_answers_at_once_when_its_broker_is_back(tmp_path: Path) -> None:
    broker = EmbeddedKafka(tmp_path, EmbeddedOptions(open=True))
    running = await asyncio.to_thread(broker.start)
    store = KafkaStore({"bootstrap.servers": running.bootstrap}, timeout=20)
    try:
        await store.start()
        await asyncio.to_thread(broker.stop)
        await asyncio.to_thread(broker.start)
        # The leader has another epoch now: the client that asked before has to learn of it.
        await store.refresh()
        assert await store.write(register("flights-value", json.dumps(FLIGHT))) is not None
    finally:
        await store.close()
        await asyncio.to_thread(broker.stop)


async def test_what_one_registry_wrote_another_answers_at_once(kafka: Any, namespace: str) -> None:
    topic = topic_name(namespace)
    async with serving(kafka.bootstrap, topic) as one, serving(kafka.bootstrap, topic) as other:

        def check() -> None:
            writer, reader = RegistryClient(one), RegistryClient(other)
            for number in range(5):
                made = writer.register(f"s{number}", Schema({"type": "record", "name": f"R{number}", "fields": []}))
                assert reader.by_id(made.id or 0) == made
                assert reader.latest(f"s{number}") == made
            writer.close()
            reader.close()

        await apart(check)


async def test_the_topic_holds_confluents_records(kafka: Any, namespace: str) -> None:
    topic = topic_name(namespace)
    async with serving(kafka.bootstrap, topic) as url:

        def work() -> None:
            with SchemaRegistryClient({"url": url}) as client:
                client.register_schema("a", WireSchema('"string"', "AVRO"))
                client.set_compatibility("a", "NONE")
                client.delete_subject("a")
                client.delete_subject("a", permanent=True)

        await apart(work)
    found = await apart(_records, kafka.bootstrap, topic, 8)
    key = {"keytype": "SCHEMA", "subject": "a", "version": 1, "magic": 1}
    assert found[0] == (key, {"subject": "a", "version": 1, "id": 1, "schema": '"string"', "deleted": False})
    assert found[1] == ({"keytype": "CONFIG", "subject": "a", "magic": 0}, {"compatibilityLevel": "NONE"})
    assert found[2] == ({"keytype": "DELETE_SUBJECT", "subject": "a", "magic": 0}, {"subject": "a", "version": 1})
    assert (key, None) in found[3:]


async def test_a_topic_written_by_confluents_registry_is_taken_over(kafka: Any, namespace: str) -> None:
    topic = topic_name(namespace)
    first = KafkaStore({"bootstrap.servers": kafka.bootstrap}, topic)
    await first.start()
    await first.close()

    # As Confluent's registry 7 writes them, first the record by which it finds the end of the topic.
    def schema(subject: str, version: int, number: int, text: str) -> tuple[str, str]:
        key = f'{{"keytype":"SCHEMA","subject":"{subject}","version":{version},"magic":1}}'
        value = f'{{"subject":"{subject}","version":{version},"id":{number},"schema":"\\"{text}\\"","deleted":false}}'
        return key, value

    records: list[tuple[str, str | None]] = [
        ('{"keytype":"NOOP","magic":0}', None),
        schema("t-value", 1, 41, "int"),
        schema("t-value", 2, 42, "long"),
        schema("gone", 1, 43, "bytes"),
        ('{"keytype":"DELETE_SUBJECT","subject":"gone","magic":0}', '{"subject":"gone","version":1}'),
        ('{"keytype":"CONFIG","subject":null,"magic":0}', '{"compatibilityLevel":"FULL"}'),
        ("not even json", "x"),
    ]

    def produce() -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap})
        for key, value in records:
            producer.produce(topic, value, key)
        assert producer.flush(20) == 0

    await apart(produce)
    async with serving(kafka.bootstrap, topic) as url:

        def check() -> None:
            with SchemaRegistryClient({"url": url}) as client:
                assert client.get_subjects() == ["t-value"]
                assert client.get_versions("t-value") == [1, 2]
                assert client.get_schema(41).schema_str == '"int"'
                assert client.get_compatibility() == "FULL"
                assert client.register_schema("new", WireSchema('"string"', "AVRO")) == 44

        await apart(check)


async def test_an_id_is_not_given_again_after_its_schema_was_deleted_for_good(kafka: Any, namespace: str) -> None:
    topic = topic_name(namespace)
    async with serving(kafka.bootstrap, topic) as url:

        def work() -> int:
            with SchemaRegistryClient({"url": url}) as client:
                made = client.register_schema("a", WireSchema('"string"', "AVRO"))
                client.delete_subject("a")
                client.delete_subject("a", permanent=True)
                return made

        first = await apart(work)

    async with serving(kafka.bootstrap, topic) as url:

        def more() -> int:
            with SchemaRegistryClient({"url": url}) as client, pytest.raises(SchemaRegistryError, match="40403"):
                client.get_schema(first)
            with SchemaRegistryClient({"url": url}) as client:
                return client.register_schema("b", WireSchema('"int"', "AVRO"))

        assert await apart(more) > first


async def test_references_are_resolved_by_both_clients(kafka: Any, namespace: str) -> None:
    airport = {"type": "record", "name": "geo.Airport", "fields": [{"name": "code", "type": "string"}]}
    route = {"type": "record", "name": "geo.Route", "fields": [{"name": "to", "type": "geo.Airport"}]}
    async with serving(kafka.bootstrap, topic_name(namespace)) as url:

        def check() -> None:
            with SchemaRegistryClient({"url": url}) as client:
                client.register_schema("airport", WireSchema(json.dumps(airport), "AVRO"))
                using = WireSchema(json.dumps(route), "AVRO", [SchemaReference("geo.Airport", "airport", 1)])
                value = AvroSerializer(client, using)({"to": {"code": "EWR"}}, VALUE)
                assert value is not None
                assert AvroDeserializer(client)(value, VALUE) == {"to": {"code": "EWR"}}
            ours = RegistryClient(url)
            assert Decoder(ours).decode(value)[1] == {"to": {"code": "EWR"}}
            ours.close()

        await apart(check)


async def test_a_topic_that_would_lose_schemas_is_refused(kafka: Any, make_topic: Any) -> None:
    for topic in (
        make_topic("wide", 2, {"cleanup.policy": "compact"}),
        make_topic("deleting", 1, {"cleanup.policy": "delete"}),
    ):
        store = KafkaStore({"bootstrap.servers": kafka.bootstrap}, topic)
        with pytest.raises(ConfigurationError, match=topic):
            await store.start()
        await store.close()


def _records(bootstrap: str, topic: str, most: int) -> list[tuple[Any, Any]]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "test",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[tuple[Any, Any]] = []
    for _ in range(most * 2):
        message = consumer.poll(20)
        if message is None or message.error():
            break
        value = message.value()
        found.append((json.loads(message.key() or b""), None if value is None else json.loads(value)))
    consumer.close()
    return found


async def test_a_topic_that_was_deleted_gets_back_what_a_registry_knows_of_it(
    kafka: Any, kafka_admin: AdminClient, namespace: str
) -> None:
    topic = topic_name(namespace)
    async with remembering(kafka.bootstrap, topic) as (store, client):
        first = await apart(client.register, "flights-value", Schema(FLIGHT))
        second = await apart(client.register, "other-value", Schema('"string"'))
        await apart(client.set_level, "flights-value", "FULL")
        await apart(_delete, kafka_admin, topic)
        await store.look()
        async with remembering(kafka.bootstrap, topic) as (_, another):
            found = [await apart(another.latest, subject) for subject in ("flights-value", "other-value")]
            assert [one.id for one in found] == [first.id, second.id]
            assert await apart(another.level, "flights-value") == "FULL"
            third = await apart(another.register, "third-value", Schema('"int"'))
            assert (third.id or 0) > (second.id or 0)
        assert (await apart(client.by_id, third.id or 0)).json == "int"


async def test_where_a_topic_made_anew_gave_its_ids_to_other_schemas_nothing_is_answered(
    kafka: Any, kafka_admin: AdminClient, namespace: str
) -> None:
    topic = topic_name(namespace)
    async with remembering(kafka.bootstrap, topic) as (store, client):
        first = await apart(client.register, "flights-value", Schema(FLIGHT))
        await apart(_delete, kafka_admin, topic)
        async with remembering(kafka.bootstrap, topic) as (_, other):
            assert (await apart(other.register, "other-value", Schema('"string"'))).id == first.id
            await store.look()
            for ask in (lambda: client.latest("flights-value"), lambda: client.register("new-value", Schema('"int"'))):
                with pytest.raises(RetriableError, match=rf"made anew.*schema id {first.id} was"):
                    await apart(ask)
            assert await apart(other.subjects) == ["other-value"]


@asynccontextmanager
async def remembering(bootstrap: str, topic: str) -> AsyncIterator[tuple[KafkaStore, RegistryClient]]:
    """A registry whose store is at hand, and a client of it."""
    store = KafkaStore({"bootstrap.servers": bootstrap}, topic)
    await store.start()
    listener = await serve_registry(store)
    client = RegistryClient(listener.url)
    try:
        yield store, client
    finally:
        client.close()
        await listener.stop()
        await store.close()


def _delete(admin: AdminClient, topic: str) -> None:
    """Deletes a topic, and waits until the broker knows that."""
    admin.delete_topics([topic])[topic].result(20)
    deadline = time.monotonic() + 30
    while topic_id(admin, topic) is not None:
        assert time.monotonic() < deadline
