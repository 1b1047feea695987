"""Plans with numbers, and deleting: what goes, what stays, and what one of the same name does that is applied later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bus_harness import Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from conftest import KafkaUnderTest
from typer.testing import CliRunner, Result

from trunkline.bus.accounting.audit import entries
from trunkline.bus.deadletters import Failure, dead_letter_headers
from trunkline.bus.kafka import KafkaSettings, produce, transactional_producer
from trunkline.bus.names import Names
from trunkline.bus.topics import ensure_topics, internal_topics, pipeline_topics, topic_states
from trunkline.bus.worker.applied import gather_applied, read_applied
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.cli.main import app
from trunkline.control import deletion, lag, manifests, status
from trunkline.control.cluster import Cluster
from trunkline.control.registryserver import serving_registry
from trunkline.core.errors import ConfigurationError, ConflictError
from trunkline.core.manifests import load_text
from trunkline.registry.client import RegistryClient

pytestmark = pytest.mark.kafka


class Desk:
    """Commands on the test's broker, without any worker."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path) -> None:
        self.kafka, self.names, self.folder = KafkaSettings(bootstrap), Names(namespace), folder
        self.orders = f"{namespace}.orders"

    def __call__(self, *arguments: str) -> Result:
        shared = ["--bootstrap", self.kafka.bootstrap, "--namespace", self.names.namespace]
        return CliRunner().invoke(app, [*shared, "--home", str(self.folder / "home"), *arguments])

    def done(self, *arguments: str) -> str:
        result = self(*arguments)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def refused(self, *arguments: str) -> str:
        result = self(*arguments)
        assert result.exit_code == 2, result.stdout
        return result.stderr

    def data(self, *arguments: str) -> Any:
        return json.loads(self.done("-o", "json", *arguments))

    def topic(self) -> str:
        return f"---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {{name: {self.orders}}}\n"

    def sink(self, name: str, start: str = "earliest") -> str:
        return f"""\
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {name}}}
spec:
  from: [{self.orders}]
  start: {start}
  connector: file
  config: {{folder: {self.folder}, format: {{type: jsonl}}}}
"""

    def write(self, text: str) -> str:
        file = self.folder / "flow.yaml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    def apply(self, text: str, *more: str) -> str:
        return self.done("apply", "-f", self.write(text), "--yes", *more)

    def send(self, topic: str, count: int, headers: Any = ()) -> None:
        """Records in transactions of two, so that offsets are not their number."""
        producer = transactional_producer(self.kafka, f"{self.names.namespace}.writer")
        for begin in range(0, count, 2):
            producer.begin_transaction()
            for number in range(begin, min(count, begin + 2)):
                produce(producer, topic, b"%d" % number, b"key", list(headers))
            producer.commit_transaction(20)

    def made_topics(self, name: str) -> None:
        """The topics that a worker makes for a pipeline."""
        plans = pipeline_topics(gather_applied(read_applied(self.kafka, self.names)).project, self.names, {})
        ensure_topics(self.kafka, [one for one in plans if f".{name}." in one.name])

    def fail(self, name: str, count: int) -> None:
        """Dead letters of a pipeline."""
        self.made_topics(name)
        failure = Failure("SINK", "sink.rejected", "no", attempts=1)
        headers = dead_letter_headers(
            [], pipeline=name, task="w", topic=self.orders, partition=0, offset=0, failure=failure
        )
        self.send(self.names.dead_letters(name), count, headers)


@pytest.fixture
def desk(kafka: KafkaUnderTest, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.delenv("TRUNKLINE_REGISTRY_URL", raising=False)
    made = Desk(kafka.bootstrap, namespace, tmp_path)
    made.apply(made.topic())
    return made


def test_a_plan_says_what_new_pipelines_read_first_and_what_deleted_ones_leave(desk: Desk) -> None:
    desk.apply(desk.topic() + desk.sink("old"))
    desk.send(desk.orders, 5)
    desk.fail("old", 3)
    renamed = (
        desk.topic() + desk.sink("new") + desk.sink("later", "latest") + desk.sink("dated", "2020-01-31T00:00:00Z")
    )
    shown = desk.done("plan", "-f", desk.write(renamed), "--prune")
    assert f"new: reads 5 records of {desk.orders} first (start: earliest)" in shown
    assert f"later: reads what comes to {desk.orders} from now on (start: latest)" in shown
    assert f"dated: reads 5 records of {desk.orders} first (start: 2020-01-31T00:00:00+00:00)" in shown
    assert "old: leaves 3 dead letters" in shown
    found = desk.data("plan", "-f", desk.write(renamed), "--prune")
    assert [(one["pipeline"], one["begins"], one["records"], one["exact"]) for one in found["reads"]] == [
        ("dated", "time", 5, True),
        ("later", "latest", 0, True),
        ("new", "earliest", 5, True),
    ]
    assert [(one["pipeline"], one["dead"], one["parked"], one["exact"]) for one in found["leaves"]] == [
        ("old", 3, 0, True)
    ]


def test_of_much_a_plan_says_about_how_much(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.bus.accounting.backlog.COUNTED_OFFSETS", 5)
    desk.send(desk.orders, 20)
    shown = desk.done("plan", "-f", desk.write(desk.topic() + desk.sink("new")))
    assert f"new: reads about 30 records of {desk.orders} first" in shown


def test_what_others_need_is_not_deleted_unless_they_go_too(desk: Desk) -> None:
    desk.apply(desk.topic() + desk.sink("out"))
    said = desk.refused("delete", f"topic/{desk.orders}", "--yes")
    assert f"error[delete.in_use] topic/{desk.orders}" in said.replace("Topic/", "topic/")
    assert "is needed by Sink/out" in said
    assert "no Sink is called 'ou'" in desk.refused("delete", "sink/ou", "--yes")
    assert "did you mean 'out'?" in desk.refused("delete", "sink", "ou", "--yes")
    assert "error[delete.target]" in desk.refused("delete", "out", "--yes")
    assert "pass --yes" in desk.refused("delete", "sink/out")
    dry = desk.data("delete", "sink/out", "--dry-run")
    assert (dry["applied"], dry["deleted"]) == (["Sink/out"], False)
    assert set(read_applied(desk.kafka, desk.names)) == {f"Topic/{desk.orders}", "Sink/out"}
    desk.send(desk.orders, 3)
    shown = desk.done("delete", "sinks/out", f"Topic/{desk.orders}", "--yes")
    assert f"{desk.orders}: the topic stays, with 3 records" in shown
    assert f"trunkline topic delete {desk.orders}" in shown
    assert read_applied(desk.kafka, desk.names) == {}
    deleted = [one for one in entries(desk.kafka, desk.names) if one.action == "manifest.delete"]
    assert {one.subject for one in deleted} == {"Sink/out", f"Topic/{desk.orders}"}
    assert deleted[0].details["before"]["kind"] in {"Sink", "Topic"}


def test_a_topic_is_deleted_once_nothing_applied_uses_it_and_the_trail_says_so(desk: Desk) -> None:
    desk.apply(desk.topic() + desk.sink("out"))
    desk.fail("out", 3)
    letters = desk.names.dead_letters("out")
    assert "error[topic.in_use]" in desk.refused("topic", "delete", letters, "--yes")
    assert "is used by Sink/out" in desk.refused("topic", "delete", desk.orders, "--yes")
    assert "error[topic.internal]" in desk.refused("topic", "delete", desk.names.manifests, "--yes")
    assert "error[topic.internal]" in desk.refused("topic", "delete", desk.names.schemas, "--yes")
    assert "error[topic.unknown]" in desk.refused("topic", "delete", f"{desk.orders}x", "--yes")
    desk.done("delete", "sink", "out", "--yes")
    assert "error[topic.declared]" in desk.refused("topic", "delete", desk.orders, "--yes")
    assert desk.data("topic", "delete", letters, "--dry-run")["records"] == 3
    assert f"- topic {letters}: 3 records in 1 partition" in desk.done("topic", "delete", letters, "--yes")
    assert topic_states(desk.kafka, [letters]) == {}
    trail = [one for one in entries(desk.kafka, desk.names) if one.action.startswith("topic.delete")]
    assert [(one.action, one.subject, one.details.get("outcome")) for one in trail] == [
        ("topic.delete.asked", f"topic/{letters}", None),
        ("topic.delete", f"topic/{letters}", "done"),
    ]
    assert trail[0].details["records"] == 3


def test_letters_of_a_pipeline_that_nobody_runs_are_not_sent_again(desk: Desk) -> None:
    desk.apply(desk.topic() + desk.sink("out"))
    desk.fail("out", 1)
    assert desk.data("dlq", "redrive", "out", "--dry-run")["waiting"] == 1
    desk.done("delete", "sink/out", "--forget", "--yes")
    assert [one["count"] for one in desk.data("dlq", "ls", "out")] == [1]
    for more in ((), ("--dry-run",)):
        assert "error[redrive.unattended] out: nobody runs out" in desk.refused("dlq", "redrive", "out", *more)
    assert desk.data("job", "list") == []
    assert "error[pipeline.unknown]" in desk.refused("pause", "out")


def test_the_last_changes_are_listed_with_who_made_them(desk: Desk) -> None:
    desk.apply(desk.topic() + desk.sink("out"))
    desk.apply(desk.topic() + desk.sink("out", "latest"))
    desk.done("pause", "out", "--timeout", "0")
    desk.done("delete", "sink/out", "--yes")
    listed = desk.done("audit", "ls", "--pipeline", "out")
    assert "spec.start: earliest → latest" in listed
    assert "desired: running → paused" in listed
    found = desk.data("audit", "ls", "--pipeline", "out")
    assert [one["action"] for one in found] == [
        "manifest.create",
        "manifest.change",
        "pipeline.pause",
        "manifest.delete",
    ]
    assert [one["action"] for one in desk.data("audit", "ls", "--limit", "1")] == ["manifest.delete"]


def test_a_record_that_is_no_manifest_stands_in_nobodys_way_and_can_be_deleted(desk: Desk) -> None:
    desk.apply(desk.topic() + desk.sink("out"))
    producer = desk.kafka.producer()
    for key, value in (
        ("Sink/odd", b"no manifest"),
        ("Sink/spare", b'{"v": 1, "manifest": {"kind": "Sink", "spec": 5}}'),
    ):
        produce(producer, desk.names.manifests, value, key.encode(), [])
    assert producer.flush(20) == 0
    for command in ("status", "lag"):
        assert {one["pipeline"] for one in desk.data(command)} == {"out", "odd", "spare"}
    assert "is used by Sink/out" in desk.refused("topic", "delete", desk.orders, "--yes")
    desk.done("delete", "sink", "odd", "spare", "out", "--yes")
    assert list(read_applied(desk.kafka, desk.names)) == [f"Topic/{desk.orders}"]


def test_a_compatibility_level_is_audited_where_it_changes(desk: Desk) -> None:
    leveled = f"{desk.topic().rstrip()}\nspec: {{compatibility: FULL}}\n"
    desk.apply(leveled)
    desk.apply(leveled + desk.sink("out"))
    trail = [one for one in entries(desk.kafka, desk.names) if one.action.startswith("schema.level")]
    assert [(one.action, one.subject, one.details) for one in trail] == [
        ("schema.level.asked", f"Subject/{desk.orders}-value", {"before": "BACKWARD", "after": "FULL"}),
        ("schema.level", f"Subject/{desk.orders}-value", {"before": "BACKWARD", "after": "FULL", "outcome": "done"}),
    ]


# --- with a worker that follows what is applied ---


@pytest_asyncio.fixture
async def followed(kafka: KafkaUnderTest, tmp_path: Path) -> AsyncIterator[Bus]:
    """A bus whose worker runs what is applied."""
    async with bus(kafka.bootstrap, tmp_path / "home") as made:
        ensure_topics(made.settings, internal_topics(made.names))
        settings = WorkerSettings(made.settings, made.names, tmp_path / "home", registry_url=made.registry_url)
        made.worker = Worker(settings)
        await made.worker.start()
        yield made


def _cluster(running: Bus) -> Cluster:
    @contextmanager
    def registry() -> Iterator[RegistryClient]:
        yield running.registry

    return Cluster(running.settings, running.names, "ada", registry)


async def _apply(running: Bus, text: str) -> manifests.Proposal:
    cluster = _cluster(running)
    found = await asyncio.to_thread(manifests.propose, cluster, running.registry, load_text(text), prune=False)
    await asyncio.to_thread(manifests.carry_out, cluster, running.registry, found)
    return found


async def _delete(running: Bus, target: str, *, forget: bool = False) -> deletion.Deletion:
    cluster = _cluster(running)
    found = await asyncio.to_thread(deletion.propose, cluster, [target])
    await asyncio.to_thread(deletion.carry_out, cluster, found)
    assert await asyncio.to_thread(deletion.await_ends, cluster, found, 60) == []
    if forget:
        await asyncio.to_thread(deletion.forget_progress, cluster, found)
    return found


@pytest.mark.asyncio
async def test_a_deleted_pipeline_leaves_status_and_lag_and_comes_back_where_it_stood_or_anew_when_forgotten(
    followed: Bus, endpoint_of_deletions: Endpoint
) -> None:
    endpoint, cluster = endpoint_of_deletions, _cluster(followed)
    topic = followed.name("orders")
    text = topic_manifest(topic) + http_connection("peer", endpoint.url) + http_sink("out", topic, connection="peer")
    await _apply(followed, text)
    await followed.send_orders(topic, [order(n) for n in range(3)])
    await followed.until(lambda: sorted(endpoint.ids("/out")) == [0, 1, 2], "three delivered")

    found = await _delete(followed, "sink/out")
    assert [(one.pipeline, one.partitions) for one in found.leaves] == [("out", 1)] or found.leaves[0].partitions
    assert await asyncio.to_thread(status.statuses, cluster) == []
    assert await asyncio.to_thread(lag.measure, cluster) == {}
    with pytest.raises(ConfigurationError, match="no pipeline is called 'out'"):
        await asyncio.to_thread(status.statuses, cluster, "out")

    await followed.send_orders(topic, [order(n) for n in range(3, 5)])
    back = await _apply(followed, text)
    assert [(one.pipeline, one.begins, one.records) for one in back.reads] == [("out", "committed", 2)]
    await followed.until(lambda: sorted(endpoint.ids("/out")) == [0, 1, 2, 3, 4], "only the two that were new")

    await _delete(followed, "sink/out", forget=True)
    anew = await _apply(followed, text)
    assert [(one.pipeline, one.begins, one.records) for one in anew.reads] == [("out", "earliest", 5)]
    await followed.until(lambda: sorted(endpoint.ids("/out")) == sorted([*range(5), *range(5)]), "all of them again")
    forgotten = [one for one in entries(followed.settings, followed.names, "out") if "forget" in one.action]
    assert [(one.action, one.who, one.details.get("outcome")) for one in forgotten] == [
        ("pipeline.forget.asked", "ada", None),
        ("pipeline.forget", "ada", "done"),
    ]


@pytest_asyncio.fixture
async def endpoint_of_deletions() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    await made.start()
    yield made
    await made.stop()


@pytest.mark.slow
def test_of_two_who_apply_at_once_one_wins_and_the_other_sees_the_difference(desk: Desk) -> None:
    with serving_registry(desk.kafka, desk.names, "a test") as url:
        client = RegistryClient(url)
        _two_apply(desk, client)
        client.close()


def _two_apply(desk: Desk, client: RegistryClient) -> None:
    @contextmanager
    def registry() -> Iterator[RegistryClient]:
        yield client

    ada, bob = (Cluster(desk.kafka, desk.names, who, registry) for who in ("ada", "bob"))

    def planned(cluster: Cluster, text: str, *, prune: bool = False) -> manifests.Proposal:
        return manifests.propose(cluster, client, load_text(text), prune=prune)

    mine, theirs = planned(ada, desk.sink("out")), planned(bob, desk.sink("out", "latest"))
    other, cleared = planned(bob, desk.sink("other")), planned(bob, desk.topic() + desk.sink("zed"), prune=True)
    manifests.carry_out(ada, client, mine)
    with pytest.raises(ConflictError, match="Sink/out was changed by ada"):
        manifests.carry_out(bob, client, theirs)
    manifests.carry_out(bob, client, other)
    with pytest.raises(ConflictError, match=r"Sink/out was changed by ada .* Sink/other was changed by bob"):
        manifests.carry_out(bob, client, cleared)
    assert {"Sink/out", "Sink/other"} < set(read_applied(desk.kafka, desk.names))
    # What would not go with what is applied by now is refused for that.
    late = deletion.propose(bob, [f"topic/{desk.orders}", "sink/out", "sink/other"])
    twice = [deletion.propose(who, ["sink/other"]) for who in (ada, bob)]
    manifests.carry_out(ada, client, planned(ada, desk.sink("third")))
    with pytest.raises(ConfigurationError, match="is needed by Sink/third"):
        deletion.carry_out(bob, late)
    assert deletion.carry_out(ada, twice[0]) == ["Sink/other"]
    assert deletion.carry_out(bob, twice[1]) == []  # as bob wanted, and not by him
    deleted = [one.who for one in entries(desk.kafka, desk.names) if one.action == "manifest.delete"]
    assert deleted == ["ada"]
