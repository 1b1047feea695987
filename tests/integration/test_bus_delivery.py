"""Sinks whose other side is in trouble: the breaker of an account, the fallback, too many dead letters, and a server that is stuck."""

from __future__ import annotations

import asyncio

import pytest
from bus_harness import Bus, Endpoint, http_connection, http_sink, long_note, order, topic_manifest
from prometheus_client import REGISTRY

from trunkline.bus.accounting.trace import find_hops
from trunkline.bus.states import State

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

BREAKER = "  breaker: {calls: 5, wait: 200ms, longest: 200ms}\n"


async def test_while_the_breaker_of_an_account_is_open_its_pipelines_hold_their_offsets_and_then_go_on(
    running: Bus, endpoint: Endpoint
) -> None:
    topic, is_up = running.name("breaker"), asyncio.Event()
    for path in ("/one", "/two"):
        endpoint.answers[path] = lambda _asked, _times: 200 if is_up.is_set() else 503
    await running.add(
        topic_manifest(topic)
        + http_connection("shaky", endpoint.url)
        + BREAKER
        + "".join(
            http_sink(name, topic, connection="shaky").replace("attempts: 8", "attempts: 2") for name in ("one", "two")
        )
    )
    await running.until_running("one", "two")
    await running.send_orders(topic, [order(n, f"c{n}") for n in range(30)])

    def is_open() -> bool:
        return all(running.report(name).breaker in {"open", "half-open"} for name in ("one", "two"))

    await running.until(is_open, "the breaker open for both")
    assert REGISTRY.get_sample_value("trunkline_breaker_state", {"connection": "shaky"}) in {1, 2}
    refused = len(endpoint.asked)
    await running.until(lambda: len(endpoint.asked) > refused + 2, "probes")
    for name in ("one", "two"):
        assert (await running.commits(name))[topic, 0][0] == 0
        assert running.report(name).state is State.RUNNING
    is_up.set()
    await running.until(
        lambda: all(running.counts(name).get("delivered") == 30 for name in ("one", "two")), "everything delivered"
    )
    assert {running.counts(name)["dead"] for name in ("one", "two")} == {0}
    assert {running.report(name).breaker for name in ("one", "two")} == {"closed"}


async def test_a_sink_with_too_many_dead_letters_stops_until_someone_restarts_it_and_nothing_is_lost(
    running: Bus, endpoint: Endpoint
) -> None:
    topic, is_mended = running.name("wrong"), asyncio.Event()
    endpoint.answers["/wrong"] = lambda _asked, _times: 200 if is_mended.is_set() else 422
    sink = http_sink(
        "wrong", topic, connection="peer", delivery=", in_flight: 1", extra="  dead_letters: {stop_above: 20, of: 40}\n"
    )
    await running.add(topic_manifest(topic) + sink)
    await running.until_running("wrong")
    await running.send_orders(topic, [order(n) for n in range(3000)])
    report = await running.until_failed("wrong")
    assert (report.state, report.code) == (State.FAILED, "deadletters.threshold")
    assert report.restart_at is None
    assert "trunkline restart wrong" in (report.hint or "")
    saved = len(await running.dead_letters("wrong"))
    committed = (await running.commits("wrong"))[topic, 0][0]
    assert 20 < saved == committed < 3000
    is_mended.set()
    await running.wish("wrong", restart=True)
    await running.until(lambda: running.counts("wrong").get("delivered") == 3000 - saved, "the rest delivered")
    assert len(await running.dead_letters("wrong")) == saved
    assert sorted(set(endpoint.ids("/wrong"))) == list(range(3000))


async def test_a_stream_with_too_many_dead_letters_stops(running: Bus) -> None:
    topic, out = running.name("bad-in"), running.name("bad-out")
    await running.add(
        topic_manifest(topic)
        + topic_manifest(out)
        + f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: bad}}
spec:
  from: "{topic}"
  start: earliest
  steps: [{{filter: event.amount / (event.amount - 1) >= 0}}]
  to: "{out}"
  dead_letters: {{stop_above: 20, of: 1000}}
"""
    )
    await running.until_running("bad")
    await running.send_orders(topic, [order(n, amount=1 if n % 2 else 2) for n in range(100)])
    report = await running.until_failed("bad")
    assert (report.state, report.code) == (State.FAILED, "deadletters.threshold")
    saved = len(await running.dead_letters("bad"))
    ledger = (await running.commits("bad"))[topic, 0][1]
    assert 20 < saved == ledger.dead
    assert ledger.open == 0


async def test_a_record_that_the_sink_can_not_be_reached_for_goes_to_its_fallback(
    running: Bus, endpoint: Endpoint
) -> None:
    topic = running.name("fallback")
    endpoint.answers["/first"] = lambda asked, _times: 503 if asked.json["id"] % 3 == 0 else 200
    fallback = "  fallback: {connector: http, connection: peer, config: {url: /second}, after: 2}\n"
    await running.add(topic_manifest(topic) + http_sink("first", topic, connection="peer", extra=fallback))
    await running.until_running("first")
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"f-0"), ("ce_correlationid", b"fallback-4711")]
    await running.send_orders(topic, [order(0)], headers)
    await running.send_orders(topic, [order(n, f"c{n}") for n in range(1, 9)])
    await running.until(lambda: running.counts("first").get("delivered") == 9, "everything delivered")
    assert sorted(endpoint.ids("/second")) == [0, 3, 6]
    assert running.counts("first")["dead"] == 0

    async def hop() -> bool:
        hops = await asyncio.to_thread(find_hops, running.settings, running.names.trace, "fallback-4711")
        return any((one.pipeline, one.outcome, one.detail) == ("first", "delivered", "fallback") for one in hops)

    await running.until(hop, "the fallback in the trace")


async def test_a_sink_whose_server_is_stuck_holds_a_bounded_number_of_bytes_and_no_other_pipeline_waits(
    running: Bus,
) -> None:
    is_over = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    topic, small = running.name("large"), running.name("small")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    size, hold = 200_000, 2 * 2**20
    stuck = http_sink("stuck", topic, connection="hole", delivery=", hold: 2 MiB")
    manifests = topic_manifest(topic, 4) + topic_manifest(small) + http_connection("hole", url)
    text = manifests + stuck + http_sink("lively", small, connection="peer")
    try:
        await running.add(text)
        await running.until_running("stuck", "lively")
        await running.send_orders(topic, [order(n, f"c{n}", note=long_note(size)) for n in range(60)])
        held = await running.until(
            lambda: (
                (found := REGISTRY.get_sample_value("trunkline_held_bytes", {"pipeline": "stuck"}) or 0) > hold / 2
                and found
            ),
            "the stuck sink full",
        )
        await running.send_orders(small, [order(n, f"c{n}") for n in range(500)])
        await running.until(lambda: running.counts("lively").get("delivered") == 500, "the lively sink done")
        held = max(held, REGISTRY.get_sample_value("trunkline_held_bytes", {"pipeline": "stuck"}) or 0)
        assert held <= hold + size
        assert running.counts("stuck").get("delivered", 0) == 0
    finally:
        is_over.set()
        server.close()
        await running.remove(text)
