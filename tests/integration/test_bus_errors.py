"""What bad input gets: the engine's rows of the table in DESIGN.md, on a real broker, with one worker for all of them."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bus_harness import (
    Asked,
    Bus,
    Endpoint,
    Registry,
    bus,
    delete_topic,
    http_connection,
    http_sink,
    long_note,
    order,
    set_topic,
    topic_manifest,
)
from conftest import KafkaUnderTest
from raw_client import write_with_header

from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.kafka import KafkaSettings, ping
from trunkline.bus.names import Names
from trunkline.bus.redrive.edits import Edit, Editor
from trunkline.bus.states import State
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.control.cluster import Cluster
from trunkline.control.deadletters import details
from trunkline.control.tail import tail
from trunkline.core.errors import RejectedError, UnavailableError
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry() -> Registry:
    return Registry()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    kafka: KafkaUnderTest, endpoint: Endpoint, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("worker"), registry=registry) as made:
        await made.start(http_connection("peer", endpoint.url))
        yield made


async def _sink(running: Bus, name: str, *, delivery: str = "", extra: str = "", partitions: int = 1) -> str:
    """A topic and an http sink that reads it."""
    topic = running.name(name)
    manifest = http_sink(name, topic, connection="peer", delivery=delivery, extra=extra)
    await running.add(topic_manifest(topic, partitions) + manifest)
    return topic


async def _settled(running: Bus, pipeline: str, count: int) -> dict[str, int]:
    await running.until(lambda: running.counts(pipeline).get("read") == count, f"{count} settled by {pipeline}")
    counts = running.counts(pipeline)
    return {name: counts[name] for name in ("delivered", "filtered", "dead")}


def _customers(count: int) -> list[dict[str, object]]:
    return [order(number, f"c{number}") for number in range(count)]


async def _codes(running: Bus, pipeline: str) -> list[str]:
    return [one.header("__connect.errors.exception.class.name") for one in await running.dead_letters(pipeline)]


# --- records ----------------------------------------------------------------------------------------------------------


async def test_records_that_cannot_be_decoded_become_byte_identical_dead_letters_and_their_neighbours_are_delivered(
    running: Bus, endpoint: Endpoint
) -> None:
    topic = await _sink(running, "mixed")
    encoder = await running.encoder(topic)
    good = [encoder.encode(order(number)) for number in range(3)]
    bad: list[tuple[bytes | None, str]] = [
        (b"no avro at all", "record.undecodable"),
        (b"\0\0\0\x7f\xf0" + good[0][5:], "record.unknown_schema"),
        (good[0][:-1], "record.undecodable"),
        (good[0] + b"!", "record.undecodable"),
        (b"", "record.undecodable"),
        (None, "record.tombstone"),
    ]
    own = [("tenant", b"a"), ("tenant", b"b"), ("raw", b"\xff\x00")]
    values = [good[0], *[value for value, _ in bad[:3]], good[1], *[value for value, _ in bad[3:]], good[2]]
    await running.send(topic, [(value, b"key", list(own)) for value in values])
    assert await _settled(running, "mixed", len(values)) == {"delivered": 3, "filtered": 0, "dead": 6}
    assert endpoint.ids("/mixed") == [0, 1, 2]
    letters = await running.dead_letters("mixed")
    assert list(zip([one.value for one in letters], await _codes(running, "mixed"), strict=True)) == bad
    for letter in letters:
        assert letter.key == b"key"
        assert letter.original_headers() == own
        assert letter.header("__connect.errors.topic") == topic
        assert letter.header("__connect.errors.connector.name") == "mixed"
        assert letter.header("__connect.errors.stage") == "DECODE"
        assert letter.header("trunkline.attempts") == "1"
    assert [letter.origin for letter in letters] == [(topic, 0, offset) for offset in (1, 2, 3, 5, 6, 7)]


PAYER: dict[str, Any] = {"type": "record", "name": "Payment", "fields": [{"name": "payer", "type": "string"}]}
PAYEE: dict[str, Any] = {"type": "record", "name": "Refund", "fields": [{"name": "payee", "type": "string"}]}


async def _of_another_registry(running: Bus, topic: str) -> bytes:
    """A payment, written with a registry in which its id is the one that a refund of another topic has in ours."""
    theirs = Registry()
    await theirs.start()
    client = RegistryClient(theirs.url)
    try:
        ours = await asyncio.to_thread(running.registry.register, f"{topic}-refunds-value", Schema(PAYEE))
        for number in range(1, ours.id or 0):
            filler = Schema({"type": "enum", "name": f"Filler{number}", "symbols": ["A"]})
            await asyncio.to_thread(client.register, f"filler-{number}", filler)
        schema = await asyncio.to_thread(client.register, f"{topic}-value", Schema(PAYER))
        assert schema.id == ours.id
        return Encoder(schema).encode({"payer": "Eve"})
    finally:
        client.close()
        await theirs.stop()


async def test_a_record_of_another_registry_is_a_dead_letter_that_names_both_wherever_it_is_read(
    running: Bus, endpoint: Endpoint
) -> None:
    topic, passed = running.name("payments"), running.name("payments-passed")
    stream = _stream("payments-through", topic, passed, "[{filter: 'true'}]")
    manifests = topic_manifest(topic, schema=None) + topic_manifest(passed, schema=None) + stream
    sinks = [http_sink(name, of, connection="peer") for name, of in (("paid", topic), ("paid-passed", passed))]
    encoder = await running.encoder(topic, PAYER)
    await running.add(manifests + "".join(sinks))
    foreign = await _of_another_registry(running, topic)
    await running.send(topic, [(value, b"k", []) for value in (encoder.encode({"payer": "Ann"}), foreign, foreign)])
    assert await _settled(running, "paid", 3) == {"delivered": 1, "filtered": 0, "dead": 2}
    assert await _settled(running, "paid-passed", 1) == {"delivered": 1, "filtered": 0, "dead": 0}
    assert [asked.json for asked in endpoint.to("/paid") + endpoint.to("/paid-passed")] == [{"payer": "Ann"}] * 2
    for pipeline in ("paid", "payments-through"):
        letters = await running.dead_letters(pipeline)
        assert [letter.value for letter in letters] == [foreign, foreign]
        assert await _codes(running, pipeline) == ["record.foreign_schema"] * 2
        for named in ("Refund", f"{topic}-refunds-value", f"{topic}-value", running.registry.name):
            assert named in letters[0].header("__connect.errors.exception.message")
    await asyncio.to_thread(_who_looks_at_it_is_told, running, topic, letters[0])


def _who_looks_at_it_is_told(running: Bus, topic: str, letter: DeadLetter) -> None:
    """`dlq show`, `topic tail` and an edit say what it is, and show no datum of the other schema."""
    cluster = Cluster(running.settings, running.names, "a test", lambda: nullcontext(running.registry))
    shown = details(letter, cluster.decoders(running.registry))
    tailed = list(tail(cluster, running.registry, topic, count=3, follow=False))
    of_letters = list(tail(cluster, running.registry, running.names.dead_letters("paid"), count=1, follow=False))
    assert tailed[0].value == {"payer": "Ann"}
    for told in (shown.undecodable, tailed[-1].undecodable, of_letters[0].undecodable):
        assert "Refund" in (told or "")
        assert f"{topic}-value" in (told or "")
    with pytest.raises(RejectedError) as refused:
        Editor(running.registry, Edit(set={"payer": "'Bob'"})).edited(letter)
    assert refused.value.code == "record.foreign_schema"
    whole = Editor(running.registry, Edit(document={"payer": "Bob"})).edited(letter)
    assert cluster.decoders(running.registry)(topic).decode(whole)[1] == {"payer": "Bob"}


async def test_a_topic_that_the_registry_knows_nothing_of_fails_its_readers_and_judges_no_record(
    running: Bus, endpoint: Endpoint
) -> None:
    topic = running.name("strange")
    await running.add(topic_manifest(topic, schema=None) + http_sink("strange-out", topic, connection="peer"))
    schema = await asyncio.to_thread(running.registry.register, f"{topic}-elsewhere", Schema(PAYER))
    value = Encoder(schema).encode({"payer": "Ann"})
    await running.send(topic, [(value, b"k", [])])
    report = await running.until_failed("strange-out")
    assert (report.state, report.code) == (State.FAILED, "schema.no_subject")
    assert f"{topic}-value" in (report.reason or "")
    assert not await running.dead_letters("strange-out")
    await asyncio.to_thread(running.registry.register, f"{topic}-value", Schema(PAYER))
    await running.wish("strange-out", restart=1)
    assert await _settled(running, "strange-out", 1) == {"delivered": 1, "filtered": 0, "dead": 0}
    assert [asked.json for asked in endpoint.to("/strange-out")] == [{"payer": "Ann"}]


def _stream(name: str, source: str, target: str, steps: str, extra: str = "") -> str:
    return f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec:
  from: "{source}"
  start: earliest
  steps: {steps}
  to: "{target}"
  {extra}
"""


@pytest.mark.parametrize("processing", ["exactly-once", "at-least-once"])
async def test_a_stream_dead_letters_what_it_cannot_decode_compute_or_write_and_goes_on(
    running: Bus, processing: str
) -> None:
    name = f"shares-{processing[:2]}"
    source, target = running.name(f"{name}-in"), running.name(f"{name}-out")
    await running.add(
        topic_manifest(source)
        + topic_manifest(target, extra=", config: {max.message.bytes: 20000}")
        + _stream(name, source, target, "[{map: {keep: all, set: {amount: 100 / event.amount}}}]", f"processing: {processing}")
    )  # fmt: skip
    encoder = await running.encoder(source)
    values = [
        encoder.encode(order(0, amount=2)),
        encoder.encode(order(1, amount=0)),
        encoder.encode(order(2, note="n" * 30_000)),
        b"\0\0\0\0",
        encoder.encode(order(4, amount=4)),
    ]
    await running.send(source, [(value, b"k", [("own", b"1")]) for value in values])
    assert await _settled(running, name, 5) == {"delivered": 2, "filtered": 0, "dead": 3}
    assert [(one["id"], one["amount"]) for one in await running.orders(target)] == [(0, 50), (4, 25)]
    letters = await running.dead_letters(name)
    assert [letter.value for letter in letters] == values[1:4]
    assert [letter.original_headers() for letter in letters] == [[("own", b"1")]] * 3
    assert [letter.header("__connect.errors.stage") for letter in letters] == ["STEP map", "ENCODE", "DECODE"]
    assert (await _codes(running, name))[1:] == ["record.too_large", "record.undecodable"]


@pytest.mark.parametrize("processing", ["exactly-once", "at-least-once"])
async def test_a_record_whose_headers_cannot_be_read_passes_a_stream_and_a_sink_between_its_neighbours(
    running: Bus, processing: str
) -> None:
    name = f"unreadable-{processing[:2]}"
    source, target = running.name(f"{name}-in"), await _sink(running, f"{name}-out")
    encoder = await running.encoder(target)
    await running.add(topic_manifest(source))
    await running.encoder(source)
    for number in range(4):
        value = encoder.encode(order(number))
        if number in {1, 2}:
            write_with_header(running.settings.bootstrap, source, value, b"k", b"bad\xff\xfename")
        else:
            await running.send(source, [(value, b"k", [("own", b"1")])])
    await running.add(
        _stream(
            name, source, target, "[{map: {keep: all, set: {amount: event.amount + 1}}}]", f"processing: {processing}"
        )
    )
    assert await _settled(running, name, 4) == {"delivered": 4, "filtered": 0, "dead": 0}
    write_with_header(running.settings.bootstrap, target, encoder.encode(order(4)), b"k", b"\xff")
    assert await _settled(running, f"{name}-out", 5) == {"delivered": 5, "filtered": 0, "dead": 0}
    assert [one["id"] for one in await running.orders(target)] == [0, 1, 2, 3, 4]


async def test_a_step_drops_or_passes_what_it_cannot_process_where_the_manifest_says_so(running: Bus) -> None:
    source = running.name("lenient-in")
    text = topic_manifest(source)
    for mode in ("drop", "pass"):
        steps = f"[{{map: {{keep: all, set: {{amount: 100 / event.amount}}}}, on_error: {mode}}}]"
        text += topic_manifest(running.name(f"lenient-{mode}"))
        text += _stream(f"lenient-{mode}", source, running.name(f"lenient-{mode}"), steps)
    await running.add(text)
    await running.send_orders(source, [order(0, amount=0), order(1, amount=5)])
    assert await _settled(running, "lenient-drop", 2) == {"delivered": 1, "filtered": 1, "dead": 0}
    assert await _settled(running, "lenient-pass", 2) == {"delivered": 2, "filtered": 0, "dead": 0}
    assert [one["amount"] for one in await running.orders(running.name("lenient-drop"))] == [20]
    assert [one["amount"] for one in await running.orders(running.name("lenient-pass"))] == [0, 20]


# --- what the other system answers ------------------------------------------------------------------------------------


async def test_a_422_is_a_dead_letter_of_that_record_alone(running: Bus, endpoint: Endpoint) -> None:
    endpoint.answers["/refusing"] = lambda asked, _times: 422 if asked.json["id"] == 4 else 201
    topic = await _sink(running, "refusing", partitions=2)
    await running.send_orders(topic, _customers(9))
    assert await _settled(running, "refusing", 9) == {"delivered": 8, "filtered": 0, "dead": 1}
    (letter,) = await running.dead_letters("refusing")
    assert letter.key == b"c4"
    assert "422" in letter.header("__connect.errors.exception.message")
    assert sorted(endpoint.ids("/refusing")) == list(range(9))  # each was sent once


async def test_a_single_403_is_a_dead_letter(running: Bus, endpoint: Endpoint) -> None:
    endpoint.answers["/private"] = lambda asked, _times: 403 if asked.json["id"] == 2 else 200
    topic = await _sink(running, "private", delivery=", access_refusals: 3")
    await running.send_orders(topic, _customers(5))
    assert await _settled(running, "private", 5) == {"delivered": 4, "filtered": 0, "dead": 1}


async def test_refusals_of_several_keys_in_a_row_fail_the_pipeline_and_nothing_is_dead_lettered(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/locked"] = lambda _asked, _times: 403
    topic = await _sink(running, "locked", delivery=", access_refusals: 5")
    await running.send_orders(topic, _customers(40))
    report = await running.until_failed("locked", failures=2)
    assert (report.state, report.code) == (State.FAILED, "sink.access")
    assert await running.dead_letters("locked") == []
    assert {offset for offset, _, _ in (await running.commits("locked")).values()} == {0}
    endpoint.answers["/locked"] = lambda _asked, _times: 200
    await running.wish("locked", restart=True)
    assert await _settled(running, "locked", 40) == {"delivered": 40, "filtered": 0, "dead": 0}


async def test_a_401_fails_the_pipeline_holds_the_offset_and_dead_letters_nothing(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/signed-out"] = lambda asked, _times: 401 if asked.json["id"] >= 3 else 200
    topic = await _sink(running, "signed-out", delivery=", order: partition")
    await running.send_orders(topic, [order(number) for number in range(8)])
    report = await running.until_failed("signed-out", failures=2)
    assert report.state is State.FAILED
    assert report.reason is not None
    assert "401" in report.reason
    assert report.restart_at is not None
    assert await running.dead_letters("signed-out") == []
    assert (await running.commits("signed-out"))[topic, 0][0] == 3
    endpoint.answers["/signed-out"] = lambda _asked, _times: 200
    await running.wish("signed-out", restart=True)
    assert await _settled(running, "signed-out", 8) == {"delivered": 8, "filtered": 0, "dead": 0}


async def test_what_may_pass_is_tried_again_and_healthy_keys_flow_past_it(running: Bus, endpoint: Endpoint) -> None:
    troubles: Sequence[int | None] = (503, None, 500, 408, None)

    def answer(asked: Asked, times: int) -> int | None:
        if asked.json["customer"] != "sick":
            return 200
        return troubles[times - 1] if times <= len(troubles) else 200

    endpoint.answers["/flaky"] = answer
    topic = await _sink(running, "flaky")
    sick = [order(0, "sick"), order(1, "sick")]
    await running.send_orders(topic, sick[:1] + [order(10 + n, f"c{n}") for n in range(10)] + sick[1:])
    assert await _settled(running, "flaky", 12) == {"delivered": 12, "filtered": 0, "dead": 0}
    ids = endpoint.ids("/flaky")
    assert ids[-12:] == [0] * 6 + [1] * 6 or ids.count(0) == ids.count(1) == 6
    assert max(ids.index(10 + n) for n in range(10)) < len(ids) - 1 - ids[::-1].index(
        0
    )  # nobody waited for the sick one
    assert ids.index(1) > len(ids) - 1 - ids[::-1].index(0)  # its own key did


async def test_a_429_holds_everything_back_for_as_long_as_it_asks_and_uses_up_no_attempt(
    running: Bus, endpoint: Endpoint
) -> None:
    def answer(asked: Asked, times: int) -> tuple[int, dict[str, str]] | int:
        return (429, {"Retry-After": "1"}) if asked.json["id"] == 0 and times <= 2 else 200

    endpoint.answers["/busy"] = answer
    topic = await _sink(running, "busy", delivery=", in_flight: 1")
    await running.remove(running.manifests[-1])
    manifest = http_sink("busy", topic, connection="peer").replace("min_delay: 20ms", "attempts: 1, min_delay: 20ms")
    await running.add(topic_manifest(topic) + manifest)
    await running.send_orders(topic, _customers(4))
    assert await _settled(running, "busy", 4) == {"delivered": 4, "filtered": 0, "dead": 0}


async def test_attempts_that_are_used_up_make_a_dead_letter_that_counts_them(running: Bus, endpoint: Endpoint) -> None:
    endpoint.answers["/broken"] = lambda asked, _times: 500 if asked.json["id"] == 1 else 200
    topic = running.name("broken")
    retry, delivery = "attempts: 3, min_delay: 20ms, max_delay: 200ms", ", exhausted: dead-letter"
    manifest = http_sink("broken", topic, connection="peer", retry=retry, delivery=delivery)
    await running.add(topic_manifest(topic) + manifest)
    await running.send_orders(topic, _customers(3))
    assert await _settled(running, "broken", 3) == {"delivered": 2, "filtered": 0, "dead": 1}
    (letter,) = await running.dead_letters("broken")
    assert letter.header("trunkline.attempts") == "3"
    assert endpoint.ids("/broken").count(1) == 3


# --- dead letters that can't be saved ---------------------------------------------------------------------------------


async def test_a_sink_stops_when_its_dead_letter_topic_takes_no_dead_letter_and_after_repair_nothing_is_lost(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/narrow"] = lambda asked, _times: 422 if asked.json["note"] else 200
    topic = await _sink(running, "narrow", delivery=", order: partition")
    await running.until_running("narrow")
    letters = running.names.dead_letters("narrow")
    await set_topic(running.settings, letters, max_message_bytes="2000")
    await running.send_orders(topic, [order(0), order(1), order(2, note=long_note()), order(3)])
    report = await running.until_failed("narrow", failures=2)
    assert (report.state, report.code) == (State.FAILED, "deadletters.failed")
    assert (await running.commits("narrow"))[topic, 0][0] == 2
    await set_topic(running.settings, letters, max_message_bytes="1000000")
    await running.wish("narrow", restart=True)
    assert await _settled(running, "narrow", 4) == {"delivered": 3, "filtered": 0, "dead": 1}
    assert len(await running.dead_letters("narrow")) == 1
    assert set(endpoint.ids("/narrow")) == {0, 1, 2, 3}


@pytest.mark.parametrize("processing", ["exactly-once", "at-least-once"])
async def test_a_stream_stops_when_its_dead_letter_topic_takes_no_dead_letter_and_after_repair_nothing_is_lost(
    running: Bus, processing: str
) -> None:
    name = f"tight-{processing[:2]}"
    source, target = running.name(f"{name}-in"), running.name(f"{name}-out")
    steps = "[{map: {keep: all, set: {amount: 100 / event.amount}}}]"
    stream = _stream(name, source, target, steps, f"processing: {processing}")
    await running.add(topic_manifest(source) + topic_manifest(target) + stream)
    await running.until_running(name)
    letters = running.names.dead_letters(name)
    await set_topic(running.settings, letters, max_message_bytes="2000")
    await running.send_orders(source, [order(0), order(1, amount=0, note=long_note()), order(2)])
    report = await running.until_failed(name, failures=2)
    assert report.state is State.FAILED
    assert report.code in {"kafka.too_large", "deadletters.failed"}
    assert (await running.commits(name))[source, 0][0] <= 1
    await set_topic(running.settings, letters, max_message_bytes="1000000")
    await running.wish(name, restart=True)
    assert await _settled(running, name, 3) == {"delivered": 2, "filtered": 0, "dead": 1}
    assert len(await running.dead_letters(name)) == 1
    found = [one["id"] for one in await running.orders(target)]
    assert found == [0, 2] if processing == "exactly-once" else set(found) == {0, 2}


@pytest.mark.parametrize("processing", ["at-least-once", "exactly-once"])
async def test_a_topic_that_accepts_less_at_once_than_a_usual_batch_gets_every_record(
    running: Bus, processing: str
) -> None:
    name = f"narrow-{processing[:2]}"
    source, target = running.name(f"{name}-in"), running.name(f"{name}-out")
    stream = _stream(name, source, target, "[{filter: event.amount == 1}]", f"processing: {processing}")
    await running.add(topic_manifest(source))
    notes = [secrets.token_hex(300) for _ in range(600)]  # what compresses well would fit
    await running.send_orders(source, [order(number, note=note) for number, note in enumerate(notes)])
    await running.add(topic_manifest(target, extra=", config: {max.message.bytes: 40000}") + stream)
    assert await _settled(running, name, len(notes)) == {"delivered": len(notes), "filtered": 0, "dead": 0}
    assert [one["note"] for one in await running.orders(target)] == notes


async def test_a_missing_dead_letter_topic_stops_the_pipeline_and_no_offset_passes_the_unsaved_record(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/homeless"] = lambda asked, _times: 422 if asked.json["id"] == 1 else 200
    topic = await _sink(running, "homeless", delivery=", order: partition")
    await running.until_running("homeless")
    letters = running.names.dead_letters("homeless")
    await delete_topic(running.settings, letters)
    await running.send_orders(topic, [order(number) for number in range(3)])
    report = await running.until_failed("homeless")
    assert (report.code, report.hint) == (
        "deadletters.failed",
        "mend the dead-letter topic; no offset has passed the record",
    )
    assert (await running.commits("homeless"))[topic, 0][0] == 1
    await running.create(letters)
    await running.wish("homeless", restart=True)
    assert await _settled(running, "homeless", 3) == {"delivered": 2, "filtered": 0, "dead": 1}
    assert len(await running.dead_letters("homeless")) == 1


async def test_an_output_topic_that_takes_less_than_it_did_stops_the_stream_with_the_reason(running: Bus) -> None:
    source, target = running.name("shrunk-in"), running.name("shrunk-out")
    await running.add(topic_manifest(source) + topic_manifest(target) + _stream("shrunk", source, target, "[]"))
    await running.until_running("shrunk")
    await set_topic(running.settings, target, max_message_bytes="2000")
    await running.send_orders(source, [order(0), order(1, note=long_note())])
    # The restart learns the new limit: from then on the record is a dead letter like any that is too large.
    assert await _settled(running, "shrunk", 2) == {"delivered": 1, "filtered": 0, "dead": 1}
    assert await _codes(running, "shrunk") == ["record.too_large"]
    assert [one["id"] for one in await running.orders(target)] == [0]


# --- what is around -----------------------------------------------------------------------------------------------------


async def test_a_missing_secret_fails_its_pipeline_by_name_while_the_others_run(
    running: Bus, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BUS_TEST_TOKEN", raising=False)
    connection = http_connection("secretive", endpoint.url).replace(
        "http: {", 'auth: {type: bearer, token: "${env:BUS_TEST_TOKEN}"}, http: {'
    )
    topic = running.name("secretive")
    await running.add(
        topic_manifest(topic)
        + connection
        + http_sink("secretive", topic, connection="secretive")
        + http_sink("open", topic, connection="peer")
    )
    await running.send_orders(topic, _customers(2))
    report = await running.until_failed("secretive", failures=2)
    assert (report.state, report.code) == (State.FAILED, "secret.missing")
    assert report.reason is not None
    assert "BUS_TEST_TOKEN" in report.reason
    assert await _settled(running, "open", 2) == {"delivered": 2, "filtered": 0, "dead": 0}
    monkeypatch.setenv("BUS_TEST_TOKEN", "correct-horse-battery")
    await running.wish("secretive", restart=True)
    assert await _settled(running, "secretive", 2) == {"delivered": 2, "filtered": 0, "dead": 0}
    assert {one.headers["Authorization"] for one in endpoint.to("/secretive")} == {"Bearer correct-horse-battery"}


async def test_a_registry_that_is_away_holds_the_pipeline_and_nothing_is_lost_or_dead_lettered(
    running: Bus, registry: Registry
) -> None:
    topic = await _sink(running, "unschooled")
    await running.until_running("unschooled")
    await running.send_orders(topic, _customers(2))  # registers the schema; the sink's decoder learns it
    assert await _settled(running, "unschooled", 2) == {"delivered": 2, "filtered": 0, "dead": 0}
    changed = {**_WITH_COLOUR}
    encoder = await running.encoder(topic, changed)
    values = [encoder.encode({**order(number, f"c{number}"), "colour": "red"}) for number in (2, 3)]
    await registry.stop()
    await running.send(topic, [(value, b"k", []) for value in values])
    report = await running.until_failed("unschooled")
    assert (report.state, report.code) == (State.RESTARTING, "registry.refused")
    await registry.start()
    assert await _settled(running, "unschooled", 4) == {"delivered": 4, "filtered": 0, "dead": 0}
    await running.until_running("unschooled")


_WITH_COLOUR = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "string"},
        {"name": "amount", "type": "long"},
        {"name": "note", "type": "string", "default": ""},
        {"name": "colour", "type": "string", "default": ""},
    ],
}


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def test_an_unreachable_broker_is_said_at_once(dead_port: int) -> None:
    with pytest.raises(UnavailableError) as raised:
        ping(KafkaSettings(f"127.0.0.1:{dead_port}"), timeout=1)
    assert raised.value.code == "kafka.refused"
    assert str(dead_port) in str(raised.value)


async def test_a_worker_does_not_start_without_a_broker(dead_port: int, tmp_path: Path) -> None:
    worker = Worker(WorkerSettings(KafkaSettings(f"127.0.0.1:{dead_port}"), Names(), tmp_path))
    with pytest.raises(UnavailableError) as raised:
        await worker.start()
    assert raised.value.code == "kafka.refused"
    await worker.close()
