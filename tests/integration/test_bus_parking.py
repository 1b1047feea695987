"""Parking: a key whose record can't be settled is held back, in order, whatever happens to workers; no other key waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from bus_harness import Asked, Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from conftest import KafkaUnderTest

from trunkline.bus.audit import entries
from trunkline.bus.parking.decisions import Action, Decision, decide, waiting
from trunkline.bus.parking.partitions import parked_records
from trunkline.bus.parking.records import ParkedRecord
from trunkline.bus.reconcile import reconcile

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

RETRY = "attempts: 2, min_delay: 5ms, max_delay: 60ms"
CUSTOMERS = 100
ROUNDS = 6


class Patient:
    """What the endpoint answers: 500 to orders of the customers that are ill, 200 to all others."""

    def __init__(self, *ill: str) -> None:
        self.ill = set(ill)

    def __call__(self, asked: Asked, _times: int) -> int:
        return 500 if asked.json["customer"] in self.ill else 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("worker")) as made:
        await made.start(http_connection("peer", endpoint.url))
        yield made


async def _sink(running: Bus, endpoint: Endpoint, name: str, *, partitions: int = 1, delivery: str = "") -> str:
    """A topic and an http sink that reads it, with an account of its own."""
    topic = running.name(name)
    await running.add(
        topic_manifest(topic, partitions)
        + http_connection(f"peer-{name}", endpoint.url)
        + http_sink(name, topic, connection=f"peer-{name}", delivery=delivery, retry=RETRY)
    )
    return topic


def _rounds(first: int, rounds: int, customers: int = CUSTOMERS) -> list[dict[str, Any]]:
    return [order(first + number, f"c{number % customers}") for number in range(rounds * customers)]


async def _parked(running: Bus, pipeline: str) -> list[tuple[int, ParkedRecord]]:
    return await asyncio.to_thread(lambda: list(parked_records(running.settings, running.names, pipeline)))


async def _until_parked(running: Bus, pipeline: str, count: int) -> list[tuple[int, ParkedRecord]]:
    found: list[tuple[int, ParkedRecord]] = []

    async def all_parked() -> bool:
        found[:] = await _parked(running, pipeline)
        return len(found) == count

    await running.until(all_parked, f"{count} parked by {pipeline}")
    return found


def _by_customer(endpoint: Endpoint, path: str) -> dict[str, list[int]]:
    """The ids that were accepted, each once, by customer in the order they came first."""
    found: dict[str, list[int]] = {}
    for one in endpoint.effects_at(path):
        found.setdefault(one["customer"], []).append(one["id"])
    return found


async def _decide(running: Bus, pipeline: str, key: str, action: Action, **values: Any) -> None:
    (partition, head), *_ = [one for one in await _parked(running, pipeline) if one[1].key == key.encode()]
    decision = Decision(pipeline, partition, key.encode(), action, by="ada", **{"upto": head.sequence, **values})
    await asyncio.to_thread(decide, running.settings, running.names, decision)


async def _closes(running: Bus, pipeline: str, **outcomes: int) -> None:
    checks = await asyncio.to_thread(reconcile, running.settings, running.names, pipeline)
    assert [check.problem for check in checks if check.problem] == []
    for name, count in outcomes.items():
        assert sum(check.outcomes[name] for check in checks) == count, name


async def test_one_key_of_a_hundred_is_held_back_and_comes_in_order_when_the_other_side_heals(
    running: Bus, endpoint: Endpoint
) -> None:
    answer = endpoint.answers["/healing"] = Patient("c7")
    topic = await _sink(running, endpoint, "healing", partitions=4)
    await running.send_orders(topic, _rounds(0, ROUNDS))
    parked = await _until_parked(running, "healing", ROUNDS)
    await running.until(
        lambda: len(endpoint.effects_at("/healing")) == (CUSTOMERS - 1) * ROUNDS, "the others delivered"
    )
    assert [record.key for _, record in parked] == [b"c7"] * ROUNDS
    assert [record.code for _, record in parked] == ["sink.exhausted"] + ["parked.behind"] * (ROUNDS - 1)
    report = running.report("healing")
    assert (report.parked_records, report.parked_keys) == (ROUNDS, 1)
    answer.ill.clear()
    await _until_parked(running, "healing", 0)
    await running.send_orders(topic, _rounds(10_000, 1))
    await running.until(lambda: len(endpoint.effects_at("/healing")) == CUSTOMERS * (ROUNDS + 1), "all delivered")
    for customer, ids in _by_customer(endpoint, "/healing").items():
        assert ids == sorted(ids), customer
    await running.until(lambda: running.counts("healing")["read"] == CUSTOMERS * (ROUNDS + 1), "all settled")
    await running.stop()
    await _closes(running, "healing", parked=ROUNDS, delivered=CUSTOMERS * (ROUNDS + 1) - ROUNDS, dead=0)
    await running.start()


async def test_what_is_decided_about_a_parked_key_is_carried_out_once_and_audited(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/decided"] = lambda asked, _times: 500 if asked.json["amount"] < 0 else 200
    topic = await _sink(running, endpoint, "decided")
    await running.send_orders(topic, [order(0, "a", -1), order(1, "a"), order(2, "a", -1), order(3, "a")])
    await running.send_orders(topic, [order(4, "b", -1), order(5, "b", -1), order(6, "b")])
    await _until_parked(running, "decided", 7)
    await _decide(running, "decided", "a", "drop", reason="a test order")
    parked = await _until_parked(running, "decided", 5)  # the head is gone, the one behind it delivered
    assert endpoint.ids("/decided").count(1) == 1
    encoder = await running.encoder(topic)
    edited = encoder.encode(order(2, "a", 7))
    await _decide(running, "decided", "a", "edit", value=edited, reason="the sign was wrong")
    await _decide(running, "decided", "b", "drop", upto=parked[-1][1].sequence, reason="all of them")
    await _until_parked(running, "decided", 0)
    assert [(one["id"], one["amount"]) for one in endpoint.effects_at("/decided")] == [(1, 1), (2, 7), (3, 1)]
    trail = await asyncio.to_thread(lambda: list(entries(running.settings, running.names, "decided")))
    assert [
        (one.who, one.action, one.details["key"], one.details["reason"], one.details["outcome"]) for one in trail
    ] == [
        ("ada", "parked.drop", "a", "a test order", "done"),
        ("ada", "parked.edit", "a", "the sign was wrong", "done"),
        ("ada", "parked.drop", "b", "all of them", "done"),
    ]
    assert trail[2].details["count"] == 3
    assert await asyncio.to_thread(waiting, running.settings, running.names, "decided") == []


async def test_a_decision_made_while_no_worker_runs_is_carried_out_by_the_next_one(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/later"] = Patient("a")
    topic = await _sink(running, endpoint, "later")
    await running.send_orders(topic, [order(0, "a"), order(1, "a")])
    await _until_parked(running, "later", 2)
    await running.stop()
    await _decide(running, "later", "a", "drop", reason="nobody wants it")
    assert len(await asyncio.to_thread(waiting, running.settings, running.names, "later")) == 1
    await running.start()
    (left,) = await _until_parked(running, "later", 1)
    assert left[1].origin.offset == 1
    assert await asyncio.to_thread(waiting, running.settings, running.names, "later") == []


async def test_a_head_that_the_other_side_refuses_for_good_becomes_a_dead_letter_and_the_next_one_goes(
    running: Bus, endpoint: Endpoint
) -> None:
    answers = {"code": 500}
    endpoint.answers["/refused"] = lambda asked, _times: answers["code"] if asked.json["id"] == 0 else 200
    topic = await _sink(running, endpoint, "refused")
    await running.send_orders(topic, [order(0, "a"), order(1, "a"), order(2, "a")])
    await _until_parked(running, "refused", 3)
    answers["code"] = 422
    await _until_parked(running, "refused", 0)
    assert [one["id"] for one in endpoint.effects_at("/refused")] == [1, 2]
    (letter,) = await running.dead_letters("refused")
    assert letter.origin == (topic, 0, 0)
    assert letter.key == b"a"
    assert int(letter.header("trunkline.attempts")) > 2


async def test_a_record_without_a_key_holds_nothing_back_and_becomes_a_dead_letter(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/keyless"] = Patient("a")
    topic = await _sink(running, endpoint, "keyless")
    encoder = await running.encoder(topic)
    await running.send(topic, [(encoder.encode(order(0, "a")), None, []), (encoder.encode(order(1, "b")), None, [])])
    await running.until(lambda: running.counts("keyless").get("read") == 2, "both settled")
    assert (running.counts("keyless")["dead"], running.counts("keyless")["parked"]) == (1, 0)


async def test_a_sink_that_says_dead_letter_does_not_park(running: Bus, endpoint: Endpoint) -> None:
    endpoint.answers["/unparked"] = Patient("a")
    topic = await _sink(running, endpoint, "unparked", delivery=", exhausted: dead-letter")
    await running.send_orders(topic, [order(0, "a"), order(1, "a")])
    await running.until(lambda: running.counts("unparked").get("dead") == 2, "two dead letters")


async def test_what_was_parked_before_a_crash_and_is_read_again_is_parked_once(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/twice"] = Patient("ill")
    topic = await _sink(running, endpoint, "twice")
    await running.send_orders(topic, [order(0, "ill"), order(1, "ok"), order(2, "ill")])
    before = await _until_parked(running, "twice", 2)
    await running.stop()
    # What a worker leaves that was killed between the parking and its next commit.
    await running.commit("twice", {(topic, 0): (0, "")})
    await running.start()
    await running.until(lambda: running.report("twice").counts.get("read") == 3, "all read again")
    assert (running.counts("twice")["parked"], running.counts("twice")["delivered"]) == (2, 1)
    assert await _parked(running, "twice") == before
    endpoint.answers["/twice"] = Patient()
    await _until_parked(running, "twice", 0)
    assert [one["id"] for one in endpoint.effects_at("/twice")] == [1, 0, 2]
