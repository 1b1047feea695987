"""What a worker says of itself: heartbeats, readiness, and nothing any more of pipelines that are gone."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bus_harness import Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from prometheus_client import REGISTRY

from trunkline.bus.embedded import EmbeddedKafka
from trunkline.bus.states import State
from trunkline.bus.worker.board import Board, Heartbeat
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.core.manifests import load_text

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]


def stream(name: str, source: str, target: str) -> str:
    return f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec: {{from: "{source}", start: earliest, to: "{target}"}}
"""


async def asked(bus_: Bus, path: str) -> tuple[int, Any]:
    """Status and JSON body of an answer of the worker."""
    assert bus_.worker is not None
    async with aiohttp.ClientSession() as session, session.get(bus_.worker.url + path) as response:
        return response.status, await response.json()


def series_of(**labels: str) -> list[str]:
    """The names of the metrics that have a series with these labels."""
    return sorted(
        {
            sample.name
            for metric in REGISTRY.collect()
            for sample in metric.samples
            if labels.items() <= sample.labels.items()
        }
    )


async def workers(bus_: Bus) -> dict[str, Heartbeat]:
    """The heartbeats on the board."""
    return {one.worker: one for one in await asyncio.to_thread(Board(bus_.settings, bus_.names).workers)}


# --- heartbeats ---


async def test_a_worker_has_a_heartbeat_as_long_as_it_runs(running: Bus, tmp_path: Path) -> None:
    other = await running.another(tmp_path)

    async def beats() -> bool:
        found = await workers(running)
        return other.id in found and found[other.id].fresh and found[other.id].url == other.url

    await running.until(beats, "a heartbeat")
    first = (await workers(running))[other.id].at

    async def beats_on() -> bool:
        return (await workers(running))[other.id].at > first

    await running.until(beats_on, "another heartbeat")
    await other.close()
    assert other.id not in await workers(running)


# --- pipelines that are gone ---


async def test_the_series_of_a_removed_pipeline_and_of_its_account_end_and_it_leaves_the_status(
    running: Bus, endpoint: Endpoint
) -> None:
    topic, copies = running.name("gone"), running.name("copies")
    endpoint.answers["/gone"] = lambda _asked, _times: 503
    manifests = (
        topic_manifest(topic)
        + topic_manifest(copies)
        + http_connection("gone-peer", endpoint.url)
        + "  breaker: {calls: 1, wait: 200ms, longest: 200ms}\n  limits: {per_minute: 10000}\n"
        + http_sink("gone", topic, connection="gone-peer", retry="attempts: 2, min_delay: 20ms, max_delay: 200ms")
        + stream("gone-copy", topic, copies)
    )
    await running.add(manifests)
    await running.until_running("gone", "gone-copy")
    await running.send_orders(topic, [order(number, f"c{number}") for number in range(5)])
    await running.until(lambda: running.report("gone").code is not None, "a cause")
    await running.until(lambda: "trunkline_pipeline_cause" in series_of(pipeline="gone"), "its series")
    await running.until(lambda: "trunkline_budget_remaining" in series_of(account="gone-peer"), "its account's series")
    assert {"trunkline_pipeline_state", "trunkline_held_records", "trunkline_delivery_attempts_total"} <= set(
        series_of(pipeline="gone")
    )
    assert series_of(connection="gone-peer") == ["trunkline_breaker_state"]
    await running.remove(manifests)
    await running.until(
        lambda: not [*series_of(pipeline="gone"), *series_of(pipeline="gone-copy")], "the end of their series"
    )
    await running.until(
        lambda: not [*series_of(connection="gone-peer"), *series_of(account="gone-peer")],
        "the end of their account's series",
    )

    async def left() -> bool:
        reports = await asyncio.to_thread(Board(running.settings, running.names).reports)
        return {one.removed for one in reports if one.pipeline in {"gone", "gone-copy"}} == {True}

    await running.until(left, "their last words")


# --- readiness ---


async def test_a_failed_pipeline_is_listed_and_leaves_its_worker_ready(running: Bus, endpoint: Endpoint) -> None:
    topic = running.name("refused")
    endpoint.answers["/refused"] = lambda _asked, _times: 401
    manifests = topic_manifest(topic) + http_sink("refused", topic, connection="peer")
    await running.add(manifests)
    await running.until_running("refused")
    assert (await asked(running, "/readyz"))[0] == 200
    await running.send_orders(topic, [order(1)])
    await running.until_failed("refused")
    status, body = await asked(running, "/readyz")
    assert (status, body["status"], body["waiting"]) == (200, "ready", ["refused"])
    (failed,) = body["pipelines"]
    assert (failed["state"], failed["code"]) == ("FAILED", "http.unauthorized")
    await running.remove(manifests)


async def test_a_worker_whose_webhooks_have_no_address_is_not_ready(
    running: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOKS_SECRET", "a-secret-of-this-test")
    topic = running.name("hooks")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = WorkerSettings(
            running.settings,
            running.names,
            tmp_path / "home",
            registry_url=running.registry_url,
            ingress=taken.getsockname(),
        )
        worker = Worker(settings)
        try:
            await worker.start(
                load_text(
                    topic_manifest(topic, schema=None)
                    + "---\napiVersion: trunkline/v1\nkind: Source\nmetadata: {name: hooks}\n"
                    f"spec:\n  connector: webhook\n  to: {topic}\n  config:\n    path: /hooks\n"
                    "    verify: {provider: github, secrets: ['${env:HOOKS_SECRET}']}\n"
                )
            )

            async def body() -> Any:
                async with aiohttp.ClientSession() as session, session.get(worker.url + "/readyz") as response:
                    found = await response.json()
                    return found if response.status == 503 and any("hooks" in one for one in found["reasons"]) else None

            found = await running.until(body, "a worker that is not ready")
            assert [one["code"] for one in found["pipelines"]] == ["address.taken"]
        finally:
            await worker.close()


async def test_while_the_broker_is_away_nothing_is_said_to_run_and_the_worker_itself_says_why(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    broker = EmbeddedKafka(tmp_path / "broker")
    started = await asyncio.to_thread(broker.start)
    try:
        # It asks who is there: the worker's clients sign in anew when it is back.
        async with bus(started.bootstrap, tmp_path / "worker", options=started.client_options) as made:
            topic, copies = made.name("orders"), made.name("copies")
            await made.start(
                topic_manifest(topic)
                + topic_manifest(copies)
                + http_connection("peer", endpoint.url)
                + http_sink("away", topic, connection="peer")
                + stream("away-copy", topic, copies)
            )
            await made.until_running("away", "away-copy")

            async def ready(status: int) -> bool:
                return (await asked(made, "/readyz"))[0] == status

            await made.until(lambda: ready(200), "the worker ready")
            await asyncio.to_thread(broker.stop)

            def told() -> bool:
                reports = [made.report(name) for name in ("away", "away-copy")]
                return all(
                    one.state is State.RESTARTING and (one.code or "").startswith("kafka.") and one.reason and one.hint
                    for one in reports
                )

            await made.until(told, "the cause of all pipelines")
            code = made.report("away").code
            assert code == "kafka.away"
            await made.until(
                lambda: REGISTRY.get_sample_value("trunkline_pipeline_cause", {"pipeline": "away", "code": code}) == 1,
                "the metric",
            )
            status, body = await asked(made, "/readyz")
            assert (status, set(body["waiting"])) == (503, {"away", "away-copy"})
            assert any("kafka.away" in reason for reason in body["reasons"])
            status, body = await asked(made, "/status")
            assert (status, body["ready"], body["kafka"]["cause"]["code"]) == (200, False, "kafka.away")
            assert {one["cause"]["code"] for one in body["pipelines"]} == {"kafka.away"}
            await asyncio.to_thread(broker.start)
            await made.until(
                lambda: all(
                    made.report(name).state is State.RUNNING and made.report(name).cause is None
                    for name in ("away", "away-copy")
                ),
                "the end of the cause",
                60,
            )
            await made.until(lambda: ready(200), "the worker ready again")
            await made.send_orders(topic, [order(number) for number in range(3)])
            await made.until(lambda: made.counts("away").get("delivered") == 3, "what came after it", 60)
    finally:
        await asyncio.to_thread(broker.stop)
