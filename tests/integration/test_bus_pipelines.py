"""Pipelines as people run them: paused, stopped, restarted, shared by two workers, started anywhere, redriven, reconciled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from bus_harness import (
    Bus,
    Endpoint,
    bus,
    http_connection,
    http_sink,
    order,
    text_headers,
    topic_manifest,
    unframed,
)
from conftest import KafkaUnderTest

from trunkline.bus.accounting.reconcile import reconcile
from trunkline.bus.accounting.trace import find_hops
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.ledger import Ledger, Plan
from trunkline.bus.names import Names
from trunkline.bus.redrive.transactions import Redrive
from trunkline.bus.states import Desired, State
from trunkline.bus.topics import topic_states
from trunkline.bus.worker.board import Board, Report
from trunkline.bus.worker.wishes import Wish, read_wishes, want
from trunkline.core.envelope import foreign_event_id

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module")
async def own(kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path: Path) -> AsyncIterator[Bus]:
    """A bus of the test's own, not started yet."""
    async with bus(kafka.bootstrap, tmp_path / "home") as made:
        made.manifests.append(http_connection("peer", endpoint.url))
        yield made


async def _sink(running: Bus, name: str, *, partitions: int = 1, delivery: str = "", extra: str = "") -> str:
    topic = running.name(name)
    manifest = http_sink(name, topic, connection="peer", delivery=delivery, extra=extra)
    await running.add(topic_manifest(topic, partitions) + manifest)
    return topic


def _stream(name: str, source: str, target: str, steps: str = "[]", start: str = "earliest") -> str:
    return f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec: {{from: "{source}", start: {start}, steps: {steps}, to: "{target}"}}
"""


# --- pause, stop, restart ---------------------------------------------------------------------------------------------


async def test_a_pipeline_is_paused_resumed_stopped_and_started_by_wishes(running: Bus, endpoint: Endpoint) -> None:
    topic = await _sink(running, "obedient")
    await running.until_running("obedient")
    await running.send_orders(topic, [order(0)])
    await running.until(lambda: endpoint.ids("/obedient") == [0], "the first delivered")

    await running.wish("obedient", Desired.PAUSED)
    await running.until(lambda: running.report("obedient").state is State.PAUSED, "paused")
    await running.send_orders(topic, [order(1)])
    await running.wish("obedient", Desired.RUNNING)
    await running.until(lambda: endpoint.ids("/obedient") == [0, 1], "the second delivered")
    assert running.report("obedient").state is State.RUNNING

    await running.wish("obedient", Desired.STOPPED)
    await running.until(lambda: running.report("obedient").state is State.STOPPED, "stopped")
    assert (await running.commits("obedient"))[topic, 0][0] == 2
    await running.send_orders(topic, [order(2)])
    await running.wish("obedient", Desired.RUNNING)
    await running.until(lambda: endpoint.ids("/obedient") == [0, 1, 2], "the third delivered")


async def test_what_is_wished_while_a_worker_starts_is_followed(
    own: Bus, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def just_before(settings: KafkaSettings, names: Names) -> dict[str, Wish]:
        found = read_wishes(settings, names)
        for desired in (Desired.STOPPED, Desired.PAUSED):
            want(settings, names, ["early"], by="a test", desired=desired)
        return found

    monkeypatch.setattr("trunkline.bus.worker.remembered.read_wishes", just_before)
    topic = own.name("early")
    await own.start(topic_manifest(topic) + http_sink("early", topic, connection="peer"))
    await own.until(lambda: own.report("early").state is State.PAUSED, "paused")


async def test_a_paused_pipeline_delivers_nothing(running: Bus, endpoint: Endpoint) -> None:
    paused, witness = await _sink(running, "sleeper"), await _sink(running, "witness")
    target = running.name("sleeping-stream-out")
    await running.add(topic_manifest(target) + _stream("sleeping-stream", paused, target))
    await running.until_running("sleeper", "witness", "sleeping-stream")
    for name in ("sleeper", "sleeping-stream"):
        await running.wish(name, Desired.PAUSED)
        await running.until(lambda name=name: running.report(name).state is State.PAUSED, f"{name} paused")
    await running.send_orders(paused, [order(n) for n in range(5)])
    for n in range(5):  # a pipeline beside it does its work meanwhile
        await running.send_orders(witness, [order(n)])
        await running.until(lambda n=n: n in endpoint.ids("/witness"), f"{n} delivered")
    assert endpoint.ids("/sleeper") == []
    assert await running.orders(target) == []
    assert running.counts("sleeper")["read"] == running.counts("sleeping-stream")["read"] == 0
    for name in ("sleeper", "sleeping-stream"):
        await running.wish(name, Desired.RUNNING)
        await running.until(lambda name=name: running.counts(name)["read"] == 5, f"{name} went on")


async def test_a_restart_wish_is_granted_once(running: Bus) -> None:
    topic = await _sink(running, "renewed")
    await running.until_running("renewed")
    before = running.report("renewed").since
    await running.wish("renewed", restart=True)
    await running.until(lambda: running.report("renewed").restart == 1, "restarted")
    await running.until_running("renewed")
    await running.send_orders(topic, [order(0)])
    await running.until(lambda: running.counts("renewed")["read"] == 1, "goes on")
    assert running.report("renewed").failures == 0
    assert running.report("renewed").since >= before


async def test_a_pipeline_restarts_by_itself_when_what_it_needs_comes_back(running: Bus, endpoint: Endpoint) -> None:
    endpoint.answers["/health"] = lambda _asked, _times: 503
    topic = running.name("patient")
    manifest = http_sink("patient", topic, connection="peer", config=", probe: /health")
    await running.add(topic_manifest(topic) + manifest)
    await running.send_orders(topic, [order(0)])
    report = await running.until_failed("patient", failures=1)
    assert report.state is State.RESTARTING
    assert report.reason is not None
    assert "503" in report.reason
    endpoint.answers.pop("/health")
    await running.until(lambda: endpoint.ids("/patient") == [0], "delivered")
    assert running.report("patient").state is State.RUNNING
    assert running.report("patient").reason is None


async def test_other_people_read_the_state_and_the_ledger_on_the_board(running: Bus) -> None:
    topic = await _sink(running, "shown")
    await running.send_orders(topic, [order(0), order(1)])
    board = Board(running.settings, running.names)

    async def shown() -> Report | None:
        reports = await asyncio.to_thread(board.reports)
        found = (one for one in reports if one.pipeline == "shown" and one.counts.get("read") == 2)
        return next(found, None)

    report = await running.until(shown, "the report on the board")
    assert report.state is State.RUNNING
    assert report.counts["delivered"] == 2


async def test_a_changed_manifest_restarts_its_pipeline_and_no_other(running: Bus, endpoint: Endpoint) -> None:
    first, second = await _sink(running, "changed"), await _sink(running, "unchanged")
    await running.until_running("changed", "unchanged")
    since = running.report("unchanged").since
    index = next(i for i, text in enumerate(running.manifests) if "name: changed}" in text)
    running.manifests[index] = running.manifests[index].replace("url: /changed", "url: /renamed")
    await running.add("")
    await running.send_orders(first, [order(0)])
    await running.send_orders(second, [order(1)])
    await running.until(lambda: endpoint.ids("/renamed") == [0] and endpoint.ids("/unchanged") == [1], "both delivered")
    assert running.report("unchanged").since == since


# --- where to begin -----------------------------------------------------------------------------------------------------


async def test_earliest_latest_and_a_time_decide_where_a_new_pipeline_begins(running: Bus, endpoint: Endpoint) -> None:
    topic = running.name("history")
    await running.add(topic_manifest(topic, 2))
    await running.send_orders(topic, [order(n, f"c{n}") for n in range(4)])
    await asyncio.sleep(0.01)  # the clock's resolution in Kafka is a millisecond
    between = datetime.now(UTC)
    await asyncio.sleep(0.01)
    await running.send_orders(topic, [order(n, f"c{n}") for n in range(4, 8)])
    starts = {"from-earliest": "earliest", "from-latest": "latest", "from-time": f"'{between.isoformat()}'"}
    for name, start in starts.items():
        manifest = http_sink(name, topic, connection="peer").replace("start: earliest", f"start: {start}")
        await running.add(manifest)
    await running.until_running(*starts)
    await running.until(
        lambda: all(len(running.report(name).positions) >= 3 for name in starts), "all partitions assigned"
    )
    await running.send_orders(topic, [order(n, f"c{n}") for n in range(8, 12)])
    expected = {"from-earliest": range(12), "from-latest": range(8, 12), "from-time": range(4, 12)}
    for name, ids in expected.items():
        await running.until(lambda name=name, ids=ids: len(endpoint.ids(f"/{name}")) >= len(ids), f"{name} delivered")
        assert sorted(endpoint.ids(f"/{name}")) == list(ids)


async def test_a_topic_of_a_family_that_appears_later_is_read_whole_also_from_latest(
    running: Bus, endpoint: Endpoint
) -> None:
    family = running.name("kin")
    await running.add(topic_manifest(f"{family}.*"))
    await running.create(f"{family}.old")
    await running.send_orders(f"{family}.old", [order(0)])
    manifest = http_sink("kin", f"{family}.*", connection="peer").replace("start: earliest", "start: latest")
    await running.add(manifest)
    await running.until_running("kin")
    await running.until(
        lambda: any("kin.old/" in place for place in running.report("kin").positions), "the old topic is assigned"
    )
    await running.create(f"{family}.new")
    await running.send_orders(f"{family}.new", [order(1), order(2)])
    await running.until(lambda: len(endpoint.ids("/kin")) >= 2, "the new topic delivered")
    assert endpoint.ids("/kin") == [1, 2]


# --- several workers ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_workers_that_join_and_leave_share_the_partitions_without_loss_or_repetition(
    own: Bus, endpoint: Endpoint, tmp_path: Path
) -> None:
    source, target = own.name("shared-in"), own.name("shared-out")
    first = await own.start(
        topic_manifest(source, 4)
        + topic_manifest(target, 4)
        + _stream("shared-stream", source, target)
        + http_sink("shared", source, connection="peer")
    )
    await own.until_running("shared-stream", "shared")
    sent = 0

    async def send(count: int) -> None:
        nonlocal sent
        await own.send_orders(source, [order(n, f"c{n % 40}") for n in range(sent, sent + count)])
        sent += count

    await send(400)
    second = await own.another(tmp_path / "second")

    async def divided() -> bool:
        await send(20)
        return all(
            sum(place.startswith(f"{source}/") for place in own.report(name, worker).positions) == 2
            for worker in (first, second)
            for name in ("shared-stream", "shared")
        )

    await own.until(divided, "the partitions divided")
    await send(400)
    own.more.remove(second)
    leaving = asyncio.create_task(second.close())
    while not leaving.done():
        await send(20)
    await leaving
    await send(100)
    await own.until(lambda: len(set(endpoint.ids("/shared"))) == sent, "all delivered")

    async def written() -> bool:
        return len(await own.orders(target)) >= sent

    await own.until(written, "all written")
    assert sorted(endpoint.ids("/shared")) == list(range(sent))
    out = [one["id"] for one in await own.orders(target)]
    assert sorted(out) == list(range(sent))
    for customer in range(40):
        mine = [number for number in endpoint.ids("/shared") if number % 40 == customer]
        assert mine == sorted(mine)
    await own.stop()
    for pipeline in ("shared", "shared-stream"):
        checks = await asyncio.to_thread(reconcile, own.settings, own.names, pipeline)
        assert [check.problem for check in checks if check.problem] == []
        assert sum(check.read for check in checks) == sent


async def test_a_worker_that_ends_has_committed_what_it_delivered(own: Bus, endpoint: Endpoint) -> None:
    topic = own.name("farewell")
    await own.start(
        topic_manifest(topic, 2) + http_sink("farewell", topic, connection="peer", delivery=", in_flight: 4")
    )
    await own.send_orders(topic, [order(n, f"c{n}") for n in range(200)])
    await own.until(lambda: len(endpoint.to("/farewell")) > 50, "some delivered")
    await own.stop()
    before = endpoint.ids("/farewell")
    commits = await own.commits("farewell")
    assert sum(ledger.delivered for _, ledger, _ in commits.values()) <= len(before)
    assert sum(ledger.open for _, ledger, _ in commits.values()) == 0
    await own.start()
    await own.until(lambda: len(set(endpoint.ids("/farewell"))) == 200, "the rest delivered")
    assert sorted(endpoint.ids("/farewell")) == list(range(200))


async def test_planned_ranges_larger_than_the_intake_holds_at_once_are_built_again(own: Bus, tmp_path: Path) -> None:
    topic, rows = own.name("ranges"), 1200
    await own.create(topic, 4)
    encoder = await own.encoder(topic)
    for partition in range(4):
        records = [(encoder.encode(order(partition * rows + n)), b"k", []) for n in range(rows)]
        await own.send(topic, records, partition)
    metadata = Ledger(first=0).to_metadata(Plan(rows - 1))
    await own.commit("ranges", {(topic, partition): (0, metadata) for partition in range(4)})
    await own.start(
        topic_manifest(topic, 4)
        + f"""---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: ranges}}
spec:
  from: "{topic}"
  start: earliest
  connector: file
  config: {{folder: "{tmp_path}/out", format: jsonl}}
  delivery: {{batch: {{count: 1000, age: 10ms}}}}
"""
    )
    await own.until(lambda: own.counts("ranges").get("delivered") == 4 * rows, "all written")
    found = {}
    for path in (tmp_path / "out").iterdir():
        found[path.name.split("-", 2)[-1]] = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert len(found) == 4
    assert all(name.endswith(f"-0-{rows - 1}.jsonl") for name in found)
    assert sorted(number for ids in found.values() for number in ids) == list(range(4 * rows))


# --- redrive, reconcile, trace ------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_sent_again_to_its_pipeline_alone_and_under_the_same_idempotency_key(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/mended"] = lambda asked, _times: 422 if asked.json["id"] in {1, 2} else 200
    topic = await _sink(running, "mended", partitions=2)
    await running.add(http_sink("bystander", topic, connection="peer"))
    await running.send_orders(topic, [order(n, f"c{n}") for n in range(4)])
    await running.until(lambda: running.counts("mended").get("dead") == 2, "two dead letters")
    await running.until(lambda: len(endpoint.ids("/bystander")) == 4, "the bystander has all")
    refused = {asked.json["id"]: asked for asked in endpoint.to("/mended") if asked.json["id"] in {1, 2}}
    endpoint.answers.pop("/mended")

    redrive = Redrive(running.settings, running.names, "mended")
    waiting = await asyncio.to_thread(redrive.waiting)
    assert sorted(unframed(letter.value or b"")["id"] for letter in waiting) == [1, 2]
    first = [letter for letter in waiting if unframed(letter.value or b"")["id"] == 1]
    assert await asyncio.to_thread(lambda: redrive.send(first, by="a test")) == 1
    await running.until(lambda: endpoint.ids("/mended").count(1) == 2, "the first delivered")
    assert await asyncio.to_thread(lambda: redrive.send(waiting, by="a test")) == 1  # the first is not sent twice
    await running.until(lambda: endpoint.ids("/mended").count(2) == 2, "the second delivered")
    assert await asyncio.to_thread(redrive.waiting) == []

    for again in endpoint.to("/mended")[-2:]:
        before = refused[again.json["id"]]
        assert again.headers["Idempotency-Key"] == before.headers["Idempotency-Key"]
        assert again.headers["X-Correlation-ID"] == before.headers["X-Correlation-ID"]
    assert sorted(endpoint.ids("/bystander")) == [0, 1, 2, 3]
    await running.until(lambda: running.counts("mended").get("read") == 6, "all accounted for")


async def test_a_stream_puts_a_redriven_record_where_it_belongs_without_the_headers_of_the_redrive(
    running: Bus,
) -> None:
    source, target = running.name("second-try-in"), running.name("second-try-out")
    steps = "[{filter: 'event.amount != 0 || 1 / event.amount > 0'}]"
    await running.add(topic_manifest(source, 2) + topic_manifest(target) + _stream("second-try", source, target, steps))
    await running.send_orders(source, [order(0), order(1, amount=0), order(2)])
    await running.until(lambda: running.counts("second-try").get("dead") == 1, "a dead letter")
    (letter,) = await running.dead_letters("second-try")
    mended = (await running.encoder(source)).encode(order(1, amount=7))
    redrive = Redrive(running.settings, running.names, "second-try")
    await asyncio.to_thread(lambda: redrive.send([replace(letter, value=mended)]))

    async def written() -> bool:
        return len(await running.orders(target)) == 3

    await running.until(written, "the mended record written")
    message = next(one for one in await running.read(target) if unframed(one.value() or b"")["id"] == 1)
    headers = text_headers(message)
    _, partition, offset = letter.origin
    assert headers["ce_id"] == foreign_event_id(await _topic_id(running, source), partition, offset)
    assert not any(name.startswith(("trunkline.", "__connect")) for name in headers)


async def _topic_id(running: Bus, topic: str) -> str:
    return (await asyncio.to_thread(topic_states, running.settings, [topic]))[topic].id


async def test_a_record_that_fails_again_after_a_redrive_is_a_dead_letter_again_and_can_be_sent_again(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/stubborn"] = lambda _asked, times: 422 if times <= 2 else 200
    topic = await _sink(running, "stubborn")
    await running.send_orders(topic, [order(0)])
    redrive = Redrive(running.settings, running.names, "stubborn")
    for number in (1, 2):
        await running.until(lambda number=number: running.counts("stubborn").get("dead") == number, f"{number} failed")
        waiting = await asyncio.to_thread(redrive.waiting)
        assert len(waiting) == 1
        assert await asyncio.to_thread(lambda waiting=waiting: redrive.send(waiting)) == 1
    await running.until(lambda: endpoint.ids("/stubborn") == [0, 0, 0], "delivered at last")
    assert len({asked.headers["Idempotency-Key"] for asked in endpoint.to("/stubborn")}) == 1


async def test_reconcile_closes_for_a_pipeline_that_did_all_and_tells_of_an_offset_that_was_skipped(own: Bus) -> None:
    source, target = own.name("audited-in"), own.name("audited-out")
    await own.start(topic_manifest(source) + topic_manifest(target) + _stream("audited", source, target))
    await own.send_orders(source, [order(n) for n in range(5)])
    await own.until(lambda: own.counts("audited").get("read") == 5, "all settled")
    await own.stop()

    async def problems() -> list[str]:
        checks = await asyncio.to_thread(reconcile, own.settings, own.names, "audited")
        return [check.problem for check in checks if check.problem]

    assert await problems() == []
    await own.send_orders(source, [order(5)])
    commit, ledger, _ = (await own.commits("audited"))[source, 0]
    await own.commit("audited", {(source, 0): (commit + 1, ledger.to_metadata())})  # somebody skips a record
    (problem,) = await problems()
    assert "6 records" in problem
    assert "5" in problem


async def test_a_record_of_somebody_else_gets_an_id_and_a_correlation_id_that_stay_the_same(
    running: Bus, endpoint: Endpoint
) -> None:
    source, target = running.name("foreign-in"), running.name("foreign-out")
    await running.add(
        topic_manifest(source)
        + topic_manifest(target)
        + _stream("foreign-stream", source, target)
        + http_sink("foreign-first", source, connection="peer")
        + http_sink("foreign-second", target, connection="peer")
    )
    await running.send_orders(source, [order(0)], [("theirs", b"1")])
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await running.send_orders(source, [order(1)], [("traceparent", trace.encode())])
    await running.until(
        lambda: len(endpoint.to("/foreign-first")) == len(endpoint.to("/foreign-second")) == 2, "delivered"
    )
    identity = foreign_event_id(await _topic_id(running, source), 0, 0)
    written = [text_headers(message) for message in await running.read(target)]
    assert (written[0]["ce_id"], written[0]["ce_correlationid"], written[0]["theirs"]) == (identity, identity, "1")
    assert written[1]["ce_correlationid"] == "0af7651916cd43dd8448eb211c80319c"
    assert written[1]["traceparent"] == trace
    for path in ("/foreign-first", "/foreign-second"):
        assert [asked.headers["X-Correlation-ID"] for asked in endpoint.to(path)] == [
            identity,
            "0af7651916cd43dd8448eb211c80319c",
        ]

    async def traced() -> bool:
        # A sink writes its trace beside the offsets, a moment after the delivery.
        hops = await asyncio.to_thread(find_hops, running.settings, running.names.trace, identity)
        return sorted((hop.pipeline, hop.outcome) for hop in hops) == [
            ("foreign-first", "delivered"),
            ("foreign-second", "delivered"),
            ("foreign-stream", "delivered"),
        ]

    await running.until(traced, "every hop in the trace")


async def test_a_stream_that_changes_nothing_writes_the_same_bytes(running: Bus) -> None:
    source, target = running.name("same-in"), running.name("same-out")
    steps = "[{filter: event.id != 1}]"
    await running.add(topic_manifest(source) + topic_manifest(target) + _stream("same", source, target, steps))
    await running.send_orders(source, [order(n) for n in range(3)])
    await running.until(lambda: running.counts("same").get("read") == 3, "all settled")
    before = [message.value() for message in await running.read(source)]
    assert len(await running.orders(target)) == 2
    after = [message.value() for message in await running.read(target)]
    assert [value[5:] for value in after if value] == [before[0][5:], before[2][5:]]  # type: ignore[index]


async def test_a_topic_that_is_not_as_its_manifest_says_is_reported_and_left_alone(running: Bus) -> None:
    topic = running.name("older")
    await running.create(topic, 2, {"retention.ms": "1000000"})
    await running.add(topic_manifest(topic, 3, extra=", config: {retention.ms: 2000000}"))
    assert running.worker is not None
    assert {(one.setting, one.wanted, one.found) for one in running.worker.differences if one.topic == topic} == {
        ("partitions", "3", "2"),
        ("retention.ms", "2000000", "1000000"),
    }
    state = (await asyncio.to_thread(topic_states, running.settings, [topic]))[topic]
    assert (state.partitions, state.config["retention.ms"]) == (2, "1000000")


async def test_dead_letter_and_retry_topics_follow_their_inputs_keep_everything_and_take_more(running: Bus) -> None:
    topic = running.name("followed")
    manifest = topic_manifest(topic, 3, extra=", config: {max.message.bytes: 3000000}")
    await running.add(manifest + http_sink("follower", topic, connection="peer"))
    own = [running.names.dead_letters("follower"), running.names.retry("follower")]
    states = await asyncio.to_thread(topic_states, running.settings, own)
    for name in own:
        assert states[name].partitions == 3
        assert states[name].max_message_bytes > 3_000_000
        assert (states[name].config["retention.ms"], states[name].config["retention.bytes"]) == ("-1", "-1")
