"""What operators of other tools reported, done to this one: addresses, secrets, partitions and homes that change under a pipeline."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path

import aiohttp
import pytest
from bus_harness import (
    Bus,
    Endpoint,
    Registry,
    bus,
    http_connection,
    http_sink,
    long_note,
    order,
    topic_manifest,
)
from conftest import KafkaUnderTest
from structlog.testing import capture_logs

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.states import State
from trunkline.bus.topics import grow_topics
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.core.errors import UnavailableError
from trunkline.core.manifests import Project

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]


async def test_a_secret_that_was_changed_holds_the_pipeline_until_a_restart_uses_the_new_one(
    running: Bus, endpoint: Endpoint, tmp_path: Path
) -> None:
    token, wanted, topic = tmp_path / "token", ["correct-horse"], running.name("rotated")
    token.write_text("correct-horse\n", encoding="utf-8")
    endpoint.answers["/rotated"] = lambda asked, _times: (
        200 if asked.headers.get("Authorization") == f"Bearer {wanted[0]}" else 401
    )
    connection = http_connection("rotated", endpoint.url).replace(
        "http: {", f'auth: {{type: bearer, token: "${{file:{token}}}"}}, http: {{'
    )
    await running.add(topic_manifest(topic) + connection + http_sink("rotated", topic, connection="rotated"))
    await running.send_orders(topic, [order(number) for number in range(3)])
    await running.until(lambda: len(endpoint.effects_at("/rotated")) == 3, "delivered with the first token")
    wanted[0] = "battery-staple"
    await running.send_orders(topic, [order(number) for number in range(3, 6)])
    report = await running.until_failed("rotated")
    assert (report.state, report.code) == (State.FAILED, "http.unauthorized")
    assert report.counts["delivered"] == 3, "the offsets are held"
    token.write_text("battery-staple\n", encoding="utf-8")
    await running.wish("rotated", restart=True)
    await running.until(lambda: len(endpoint.effects_at("/rotated")) == 6, "delivered with the next token")
    assert [one["id"] for one in endpoint.effects_at("/rotated")] == list(range(6))


async def test_partitions_that_are_added_under_a_sink_that_began_at_latest_are_read_whole(
    running: Bus, endpoint: Endpoint
) -> None:
    topic = running.name("grown")
    sink = http_sink("grown", topic, connection="peer").replace("start: earliest", "start: latest")
    await running.add(topic_manifest(topic, 2) + sink)
    await running.until_running("grown")
    await asyncio.to_thread(grow_topics, running.settings, {topic: 4})
    encoder = await running.encoder(topic)
    for partition in range(4):
        record = (encoder.encode(order(partition)), str(partition).encode(), [])
        await running.send(topic, [record], partition)
    await running.until(lambda: len(endpoint.effects_at("/grown")) == 4, "the records of all partitions")


async def test_an_outage_of_the_other_system_is_some_lines_of_log_and_not_one_a_record(
    running: Bus, endpoint: Endpoint
) -> None:
    topic = running.name("flooded")
    endpoint.answers["/flooded"] = lambda _asked, _times: 503
    connection = http_connection("flooded", endpoint.url)
    manifests = topic_manifest(topic) + connection + http_sink("flooded", topic, connection="flooded")
    with capture_logs() as logged:
        await running.add(manifests)
        await running.send_orders(topic, [order(number, f"c{number}") for number in range(500)])
        await running.until(lambda: "breaker" in (running.report("flooded").reason or ""), "refused so often")
    told = [one for one in logged if one["log_level"] != "debug" and one.get("pipeline") == "flooded"]
    assert len(endpoint.to("/flooded")) >= 10
    assert len(told) < 150, told[:5]  # as many as were under way before the breaker opened
    await running.remove(manifests)


async def test_a_second_worker_in_the_same_home_is_another_worker_and_needs_another_address(
    running: Bus, tmp_path: Path
) -> None:
    def settings(port: int) -> WorkerSettings:
        return WorkerSettings(
            running.settings, running.names, tmp_path, registry_url=running.registry_url, api=("127.0.0.1", port)
        )

    first = Worker(settings(0))
    await first.start(Project())
    port = int(first.url.rsplit(":", 1)[1])
    same = Worker(settings(port))
    other = Worker(settings(0))
    try:
        with pytest.raises(UnavailableError, match=str(port)) as caught:
            await same.start(Project())
        assert caught.value.code == "address.taken"
        assert "--api" in str(caught.value.hint)
        await other.start(Project())
        assert len({first.id, other.id}) == 2
    finally:
        for worker in (same, other, first):
            await worker.close()


async def test_addresses_of_ipv6_serve_as_bootstrap_and_as_api(
    kafka: KafkaUnderTest, running: Bus, tmp_path: Path
) -> None:
    host, _, port = kafka.bootstrap.rpartition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65_536):
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))

    try:
        server = await asyncio.start_server(forward, "::1", 0, family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    async with server:
        bootstrap = f"[::1]:{server.sockets[0].getsockname()[1]}"
        settings = WorkerSettings(
            KafkaSettings(bootstrap),
            running.names,
            tmp_path,
            registry_url=running.registry_url,
            api=("::1", 0),
        )
        worker = Worker(settings)
        try:
            await worker.start(Project())
            assert worker.url.startswith("http://[::1]:")
            async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/healthz") as answer:
                assert answer.status == 200
        finally:
            await worker.close()


async def test_a_row_that_is_larger_than_its_topic_takes_is_in_quarantine_and_the_others_went_on(
    running: Bus, tmp_path: Path
) -> None:
    topic, rows = running.name("narrow"), [order(number) for number in range(30)]
    rows[7]["note"] = long_note(60_000)
    (tmp_path / "orders.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    source = f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: wide}}
spec: {{connector: file, config: {{path: "{tmp_path}", pattern: "*.jsonl", format: jsonl}}, to: "{topic}"}}
"""
    await running.add(topic_manifest(topic, extra=", config: {max.message.bytes: 20000}") + source)
    await running.until(lambda: running.counts("wide").get("read") == 30, "read")
    assert sorted(one["id"] for one in await running.orders(topic)) == [n for n in range(30) if n != 7]
    (letter,) = await running.dead_letters("wide")
    assert letter.header("__connect.errors.exception.class.name") == "record.too_large"
    assert "20000" in str(letter.header("__connect.errors.exception.message")).replace(",", "")


@pytest.mark.slow  # two workers one after the other, and a registry that comes back
async def test_a_worker_that_starts_without_its_registry_waits_for_it_by_name_and_then_goes_on(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path: Path
) -> None:
    registry = Registry()
    async with bus(kafka.bootstrap, tmp_path, registry=registry) as made:
        topic = made.name("unschooled")
        await made.start(
            http_connection("peer", endpoint.url)
            + topic_manifest(topic)
            + http_sink("patient", topic, connection="peer")
        )
        await made.send_orders(topic, [order(number) for number in range(3)])
        await made.until(lambda: len(endpoint.effects_at("/patient")) == 3, "delivered")
        await made.send_orders(topic, [order(number) for number in range(3, 6)])
        await made.stop()
        await registry.stop()
        await made.start()
        report = await made.until_failed("patient")
        assert (report.state, report.code) == (State.RESTARTING, "registry.refused")
        assert registry.url in str(report.reason)
        await registry.start()
        await made.until(lambda: len(endpoint.effects_at("/patient")) == 6, "delivered once the registry is back")
        assert [one["id"] for one in endpoint.effects_at("/patient")] == list(range(6))
