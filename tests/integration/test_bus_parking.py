"""Parking: a key whose record can't be settled is held back, in order, whatever happens to workers; no other key waits."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from bus_harness import Asked, Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from confluent_kafka import Consumer, TopicPartition
from conftest import KafkaUnderTest

from tests.chaos.faults.warm import WarmProcess
from trunkline.bus.accounting.audit import entries
from trunkline.bus.accounting.reconcile import reconcile
from trunkline.bus.kafka import KafkaSettings, read_all
from trunkline.bus.names import Names
from trunkline.bus.parking.decisions import Action, Decision, decide, waiting
from trunkline.bus.parking.partitions import fit_parked_topic, parked_records
from trunkline.bus.parking.records import ParkedRecord
from trunkline.bus.parking.writing import Outgoing, Writer
from trunkline.bus.state import changelog_config
from trunkline.bus.topics import TopicPlan, ensure_topics, topic_states
from trunkline.bus.worker.board import Board
from trunkline.core.errors import ConfigurationError

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

RETRY = "attempts: 2, min_delay: 5ms, max_delay: 60ms"
CUSTOMERS = 100
ROUNDS = 6


class Workers:
    """Workers as processes of their own, which run one project from files."""

    def __init__(self, made: Bus, folder: Path) -> None:
        self._bus, self._folder = made, folder
        self._running: list[WarmProcess] = []

    async def __aenter__(self) -> Workers:
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._running:
            worker.kill()
            await asyncio.to_thread(worker.wait)
        print("".join(log.read_text()[-8000:] for log in self._folder.glob("*.log")))

    def write(self, manifests: str) -> None:
        (self._folder / "project.yaml").write_text(manifests)

    def spawn(self, home: str) -> WarmProcess:
        arguments = [self._bus.settings.bootstrap, self._bus.names.namespace, str(self._folder / home)]
        arguments += [str(self._folder / "project.yaml"), self._bus.registry_url]
        log = self._folder / f"{home}.log"
        worker = WarmProcess("tests.integration.bus_worker", arguments, log=log, environment=os.environ)
        self._running.append(worker)
        return worker

    async def kill(self, worker: WarmProcess) -> None:
        self._running.remove(worker)
        worker.kill()
        assert await asyncio.to_thread(worker.wait) == -signal.SIGKILL

    async def end(self) -> None:
        for worker in self._running:
            worker.terminate()
        while self._running:
            assert await asyncio.to_thread(self._running.pop().wait, 180) == 0

    async def sharing(self, pipeline: str) -> bool:
        reports = await asyncio.to_thread(Board(self._bus.settings, self._bus.names).reports)
        having = {report.worker for report in reports if report.pipeline == pipeline and not report.stale}
        return len({one for one in having if any(r.worker == one and r.positions for r in reports)}) == 2


class Patient:
    """What the endpoint answers: 500 to orders of the customers that are ill, 200 to all others."""

    def __init__(self, *ill: str) -> None:
        self.ill = set(ill)

    def __call__(self, asked: Asked, _times: int) -> int:
        return 500 if asked.json["customer"] in self.ill else 200


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
    await _closes(running, "healing", parked=0, delivered=CUSTOMERS * (ROUNDS + 1), dead=0)
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
    everything = await asyncio.to_thread(lambda: list(entries(running.settings, running.names, "decided")))
    asked = [one for one in everything if one.action.endswith(".asked")]
    trail = [one for one in everything if one not in asked]
    assert [one.action for one in asked] == ["parked.drop.asked", "parked.edit.asked", "parked.drop.asked"]
    assert [one.details["decision"] for one in asked] == [one.details["decision"] for one in trail]
    assert [
        (one.who, one.action, one.details["key"], one.details["reason"], one.details["outcome"]) for one in trail
    ] == [
        ("ada", "parked.drop", "a", "a test order", "done"),
        ("ada", "parked.edit", "a", "the sign was wrong", "done"),
        ("ada", "parked.drop", "b", "all of them", "done"),
    ]
    assert trail[2].details["count"] == 3
    assert await asyncio.to_thread(waiting, running.settings, running.names, "decided") == []
    await _closes(running, "decided", parked=0, delivered=3, dropped=4)


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
    await _closes(running, "refused", dead=1, parked=0, delivered=2)


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
    await running.until(lambda: running.counts("unparked").get("read") == 2, "both settled")
    counts = running.counts("unparked")
    assert (counts["dead"], counts.get("parked", 0)) == (2, 0)


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
    await _closes(running, "twice", parked=0, delivered=3)


async def _cli(running: Bus, *arguments: str, status: int = 0) -> Any:
    """What a command says to a program, run as a process of its own: the worker beside the test logs to the same output."""
    shared = ["--bootstrap", running.settings.bootstrap, "--namespace", running.names.namespace]
    shared += ["--registry", running.registry_url, "-o", "json"]

    def run() -> tuple[int, str, str]:
        with TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            command = [*shared, *arguments]
            process = WarmProcess("trunkline.cli.main", command, log=out, errors=err, environment=os.environ)
            return process.wait(180), out.read_text(), err.read_text()

    code, out, err = await asyncio.to_thread(run)
    assert code == status, err
    return json.loads(out if status == 0 else err)


# --- by the command line ----------------------------------------------------------------------------------------------


async def test_parked_keys_are_listed_shown_edited_retried_and_dropped_by_command(
    running: Bus, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.answers["/commanded"] = lambda asked, _times: 500 if asked.json["amount"] < 0 else 200
    topic = await _sink(running, endpoint, "commanded")
    await running.send_orders(topic, [order(0, "a", -1), order(1, "a"), order(2, "b", -1), order(3, "b", -1)])
    await _until_parked(running, "commanded", 4)
    listed = await _cli(running, "parked", "ls", "commanded")
    assert sorted((one["key"], one["records"], one["head"]) for one in listed) == [
        ("a", 2, f"{topic}[0]@0"),
        ("b", 2, f"{topic}[0]@2"),
    ]
    (first, second) = await _cli(running, "parked", "ls", "commanded", "--key", "a")
    assert (first["code"], second["code"]) == ("sink.exhausted", "parked.behind")
    shown = await _cli(running, "parked", "show", "commanded", "--key", "a")
    assert (shown["value"]["amount"], shown["origin"]) == (-1, f"{topic}[0]@0")
    value = tmp_path / "new.json"
    value.write_text(json.dumps({**shown["value"], "amount": "many"}))
    refused = await _cli(running, "parked", "edit", "commanded", "--key", "a", "--file", str(value), status=2)
    assert "amount" in json.dumps(refused)
    value.write_text(json.dumps({**shown["value"], "amount": 5}))
    edited = await _cli(running, "parked", "edit", "commanded", "--key", "a", "--file", str(value), "--reason", "typo")
    assert edited["carried_out"]
    await _until_parked(running, "commanded", 2)
    assert (await _cli(running, "parked", "retry", "commanded", "--key", "b"))["carried_out"]
    unknown = await _cli(running, "parked", "drop", "commanded", "--key", "c", "--reason", "gone", status=2)
    assert unknown["error"]["code"] == "parked.unknown"
    assert (await _cli(running, "parked", "drop", "commanded", "--key", "b", "--all", "--reason", "gone"))[
        "carried_out"
    ]
    await _until_parked(running, "commanded", 0)
    assert await _cli(running, "parked", "ls", "commanded") == []
    assert [(one["id"], one["amount"]) for one in endpoint.effects_at("/commanded")] == [(0, 5), (1, 1)]
    trail = await asyncio.to_thread(lambda: list(entries(running.settings, running.names, "commanded")))
    done = [one for one in trail if not one.action.endswith(".asked")]
    assert [(one.action, one.details["key"], one.details["reason"]) for one in done] == [
        ("parked.edit", "a", "typo"),
        ("parked.retry", "b", ""),
        ("parked.drop", "b", "gone"),
    ]


# --- through kills and rebalances -------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_park_survives_a_killed_worker_and_moves_to_another_one(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path: Path
) -> None:
    if kafka.kind == "external":
        pytest.skip("a killed member's session lasts 45 s there; the embedded broker lowers that")
    ill = {"c3", "c8", "c9"}
    answer = endpoint.answers["/moving"] = Patient(*ill)
    async with bus(kafka.bootstrap, tmp_path / "home") as made, Workers(made, tmp_path) as workers:
        topic = made.name("moving")
        workers.write(
            topic_manifest(topic, 6)
            + http_connection("peer", endpoint.url)
            + http_sink("moving", topic, connection="peer", retry=RETRY)
        )
        await made.create(topic, 6)
        first = workers.spawn("one")
        await made.send_orders(topic, _rounds(0, 4, 20))
        await _until_parked(made, "moving", len(ill) * 4)
        await workers.kill(first)
        await made.send_orders(topic, _rounds(80, 4, 20))
        workers.spawn("one")
        workers.spawn("two")
        await made.until(lambda: workers.sharing("moving"), "two workers sharing the partitions")
        await made.send_orders(topic, _rounds(160, 4, 20))
        await _until_parked(made, "moving", len(ill) * 12)
        answer.ill.clear()
        await _until_parked(made, "moving", 0)
        await made.until(lambda: len(endpoint.effects_at("/moving")) == 240, "all delivered")
        await workers.end()
        for customer, ids in _by_customer(endpoint, "/moving").items():
            assert ids == sorted(ids), customer
        await _closes(made, "moving", parked=0, delivered=240, dead=0)


# --- who may write ----------------------------------------------------------------------------------------------------


async def test_a_former_member_can_neither_park_nor_release(kafka: KafkaUnderTest, namespace: str) -> None:
    await asyncio.to_thread(_assert_a_former_member_is_refused, KafkaSettings(kafka.bootstrap), namespace)


def _assert_a_former_member_is_refused(settings: KafkaSettings, namespace: str) -> None:
    names = Names(namespace)
    topic, parked = f"{namespace}.orders", names.parked("fenced")
    ensure_topics(settings, [TopicPlan(topic, 1), TopicPlan(parked, 1, config=changelog_config(2**20))])

    def joined() -> Consumer:
        consumer = settings.consumer(names.group("fenced"))
        consumer.subscribe([topic])
        while not consumer.assignment():
            consumer.poll(0.1)
        return consumer

    class Zombie:
        """A member whose session ended without its knowing."""

        def __init__(self, member: Consumer) -> None:
            self._metadata = member.consumer_group_metadata()

        def consumer_group_metadata(self) -> object:
            return self._metadata

    former = joined()
    zombie = cast(Consumer, Zombie(former))
    former.close()
    member = joined()
    records = [Outgoing(parked, b"value", b"key", [], 0)]
    writer = Writer(settings, names, "fenced", "zombie")
    assert writer.write(records, [TopicPartition(topic, 0, 7)], zombie, parked) is None
    assert list(read_all(settings, parked)) == []
    assert member.committed([TopicPartition(topic, 0)], timeout=20)[0].offset < 0
    owner = Writer(settings, names, "fenced", "owner")
    reached = owner.write(records, [TopicPartition(topic, 0, 3)], member, parked)
    (found,) = read_all(settings, parked)
    assert reached == {0: (found.offset() or 0) + 1}
    assert member.committed([TopicPartition(topic, 0)], timeout=20)[0].offset == 3
    member.close()


async def test_keys_are_not_parked_where_the_inputs_are_divided_differently(running: Bus, endpoint: Endpoint) -> None:
    shapes = {"one": (2, 1_000_000), "two": (3, 1_000_000), running.names.retry("uneven"): (3, 1_000_000)}
    fit = functools.partial(fit_parked_topic, running.settings, running.names, "uneven", shapes)
    assert await asyncio.to_thread(fit, asked=False) is None
    with pytest.raises(ConfigurationError) as raised:
        await asyncio.to_thread(fit, asked=True)
    assert raised.value.code == "parked.partitions"


async def test_the_park_grows_with_its_inputs_but_not_while_something_is_parked(
    running: Bus, endpoint: Endpoint
) -> None:
    endpoint.answers["/growing"] = Patient("a")
    topic = await _sink(running, endpoint, "growing")
    await running.send_orders(topic, [order(0, "a")])
    await _until_parked(running, "growing", 1)
    retry = running.names.retry("growing")
    shapes = {topic: (3, 1_000_000), retry: (1, 1_000_000)}
    fit = functools.partial(fit_parked_topic, running.settings, running.names, "growing", shapes, asked=False)
    with pytest.raises(ConfigurationError, match="have 3 partitions now, and records are parked in 1"):
        await asyncio.to_thread(fit)
    endpoint.answers["/growing"] = Patient()
    await _until_parked(running, "growing", 0)
    await asyncio.to_thread(fit)
    states = await asyncio.to_thread(topic_states, running.settings, [retry, running.names.parked("growing")])
    assert [state.partitions for state in states.values()] == [3, 3]
