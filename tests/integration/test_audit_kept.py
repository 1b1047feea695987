"""The audit trail as workers and commands keep it: whatever is changed over HTTP is in it, it is sealed, noted, judged and exported."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import KafkaUnderTest
from prometheus_client import REGISTRY
from typer.testing import CliRunner, Result

from tests.chaos.faults.audit_trails import judged
from trunkline.bus.accounting.audit import Entry, Trail, append, entries, records
from trunkline.bus.accounting.notedheads import NotedHead, NotedHeads
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.states import Desired
from trunkline.bus.topics import ensure_topics, internal_topics, remove_topic
from trunkline.bus.worker.auditkeeper import AuditKeeper
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.wishes import want
from trunkline.bus.worker.worker import Worker
from trunkline.cli.main import app
from trunkline.control.api.worker import extend

pytestmark = pytest.mark.kafka
SECONDS = 60.0


class Office:
    """A namespace of its own, a home folder, and commands in both."""

    def __init__(self, settings: KafkaSettings, names: Names, home: Path) -> None:
        self.settings, self.names, self.home = settings, names, home
        ensure_topics(settings, internal_topics(names))

    def __call__(self, *arguments: str) -> Result:
        shared = ["--bootstrap", self.settings.bootstrap, "--namespace", self.names.namespace, "--home", str(self.home)]
        return CliRunner().invoke(app, [*shared, *arguments])

    def data(self, *arguments: str) -> Any:
        return json.loads(self("-o", "json", *arguments).stdout)

    def append(self, action: str = "parked.drop", who: str = "ada") -> None:
        append(self.settings, self.names, Entry(time.time(), who, action, "slack", {"key": "c1"}))

    def trail(self) -> Trail:
        return judged(list(records(self.settings, self.names)))

    def last(self, action: str) -> Entry:
        return [one for one in entries(self.settings, self.names) if one.action == action][-1]

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """A worker with a registry of its own, which follows what is applied."""
        made = Worker(WorkerSettings(self.settings, self.names, self.home), extend_api=extend)
        try:
            await made.start()
            yield made
        finally:
            await made.close()


@pytest.fixture
def office(kafka: KafkaUnderTest, namespace: str, tmp_path: Path) -> Office:
    return Office(KafkaSettings(kafka.bootstrap), Names(namespace), tmp_path)


@pytest.fixture
def same_level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


async def _until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline, f"{what} did not come to be"
        await asyncio.sleep(0.1)
    return found


async def test_a_worker_seals_what_others_wrote_and_what_is_changed_over_http_is_in_the_trail(
    office: Office, same_level: None
) -> None:
    await asyncio.to_thread(office.append)
    async with office.worker() as worker, aiohttp.ClientSession() as session:
        registry = f"{worker.url}/registry"
        for method, path, body in (
            ("POST", "/subjects/s/versions", {"schema": '"int"'}),
            ("PUT", "/config/s", {"compatibility": "FULL"}),
            ("DELETE", "/subjects/s", None),
        ):
            async with session.request(method, registry + path, json=body) as answer:
                assert answer.status == 200
        async with session.put(f"{worker.url}/logging", json={"level": "error"}) as answer:
            assert await answer.json() == {"level": "error", "audited": True}
        await _until(lambda: office.trail().unsettled == 0, "the last seal")
        trail = await asyncio.to_thread(office.trail)
        heads = NotedHeads(office.home, office.settings, office.names)
        await _until(lambda: (noted := heads.read()) is not None and noted.head == trail.head, "a noted head")
        async with session.get(f"{worker.url}/status") as answer:
            standing = (await answer.json())["audit"]
    assert trail.findings == []
    found = [(one.action, one.subject, one.who) for one in entries(office.settings, office.names)]
    assert found == [
        ("parked.drop", "", "ada"),
        ("registry.register", "Subject/s", "local"),
        ("registry.level", "Subject/s", "local"),
        ("registry.delete_subject", "Subject/s", "local"),
        ("log.level", f"worker {worker.id}", "local"),
    ]
    assert office.last("registry.level").details == {"before": None, "after": "FULL"}
    assert office.last("log.level").details["after"] == "error"
    assert (standing["intact"], standing["head"], standing["seal"]) == (True, trail.head, trail.number)


async def test_a_worker_that_finds_another_trail_than_the_one_it_noted_says_so_everywhere(office: Office) -> None:
    await asyncio.to_thread(want, office.settings, office.names, ["out"], by="ada", desired=Desired.PAUSED)
    heads = NotedHeads(office.home, office.settings, office.names)
    await asyncio.to_thread(heads.note, NotedHead("ab" * 32, 7, 3, time.time()))
    async with office.worker() as worker:
        await _until(lambda: not worker.audit.status()["intact"], "the finding")
        await _until(lambda: any(one.action == "audit.broken" for one in entries(office.settings, office.names)), "it")
        assert REGISTRY.get_sample_value("trunkline_audit_intact") == 0
    told = office.last("audit.broken")
    assert (told.details["head"], told.details["seal"]) == ("ab" * 32, 7)
    assert told.who == f"worker {worker.id}"


async def test_a_worker_that_hears_a_trail_begin_anew_knows_the_seal_that_is_gone_and_seals_the_new_one(
    office: Office,
) -> None:
    await asyncio.to_thread(want, office.settings, office.names, ["out"], by="ada", desired=Desired.PAUSED)
    keeper = AuditKeeper(office.settings, office.names, office.home, "w1")
    before = list(records(office.settings, office.names))
    for one in before:
        keeper.heard((one.key or b"").decode(), one.value, one.offset)
    await asyncio.to_thread(remove_topic, office.settings, office.names.audit)
    await asyncio.to_thread(ensure_topics, office.settings, internal_topics(office.names))
    await asyncio.to_thread(office.append)
    keeper.start()
    keeper.heard("slack", b"{}", 0)
    try:
        await _until(lambda: not keeper.status()["intact"], "the finding")
        await _until(lambda: office.trail().unsettled == 0, "a seal")
    finally:
        await keeper.close()
    assert office.last("audit.broken").details["head"] == judged(before).head
    assert "made anew" in keeper.status()["reason"]


def test_verify_ends_with_1_and_the_place_where_something_is_wrong(office: Office) -> None:
    sound = office.data("audit", "verify")
    assert (sound["intact"], sound["entries"]) == (True, 0)
    for desired in (Desired.PAUSED, Desired.STOPPED):
        want(office.settings, office.names, ["out"], by="ada", desired=desired)
    noted = office.data("audit", "verify")["head"]
    assert office("audit", "verify", "--head", noted).exit_code == 0
    copied = next(records(office.settings, office.names))
    producer = office.settings.producer()
    producer.produce(office.names.audit, copied.value, copied.key, 0)
    producer.flush(30)
    broken = office("audit", "verify", "--head", noted)
    assert (broken.exit_code, "audit.broken" in broken.stderr) == (1, True)
    *_, last = records(office.settings, office.names)
    assert last.place in broken.stdout
    assert "repeated" in broken.stdout
    other = office("audit", "verify", "--head", "cd" * 32)
    assert other.exit_code == 1
    assert "cd" * 32 in other.stdout


def test_an_export_is_judged_without_a_cluster_and_any_other_byte_in_it_is_found(
    office: Office, tmp_path: Path
) -> None:
    for desired in (Desired.PAUSED, Desired.STOPPED, Desired.RUNNING):
        want(office.settings, office.names, ["out"], by="ada", desired=desired)
    office.append()
    file = tmp_path / "trail.jsonl"
    assert office("audit", "export", "--to", str(file)).exit_code == 0
    assert file.read_bytes() == office("audit", "export").stdout_bytes or len(file.read_bytes().splitlines()) > 1
    head = office.data("audit", "verify")["head"]

    def judge(content: bytes, *more: str) -> Result:
        file.write_bytes(content)
        return CliRunner().invoke(app, ["-o", "json", "audit", "verify", "--file", str(file), *more])

    content = file.read_bytes()
    found = json.loads(judge(content, "--head", head).stdout)
    assert (found["intact"], found["entries"], found["unsealed"]) == (True, 4, 0)
    lines = content.splitlines(keepends=True)
    for tampered in (
        content.replace(b"ada", b"eve", 1),
        b"".join(lines[:-1]),
        b"".join(lines[1:]),
        b"".join([*lines[:2], *lines[3:]]),
        b"".join([*lines[:-1], lines[0], lines[-1]]),
        content + lines[0],
        content + b"\xff\n",
        b"[" * 100_000,
        b"",
    ):
        result = judge(tampered)
        assert result.exit_code == 1, tampered[:80]
        assert json.loads(result.stdout)["findings"]
    missing = CliRunner().invoke(app, ["audit", "verify", "--file", str(tmp_path / "none")])
    assert missing.exit_code == 2


def test_search_finds_by_who_what_when_and_any_text(office: Office) -> None:
    office.append("parked.drop", "ada")
    office.append("redrive.start", "bob")
    want(office.settings, office.names, ["out"], by="Ada", desired=Desired.PAUSED)

    def found(*criteria: str) -> list[str]:
        return [one["action"] for one in office.data("audit", "search", *criteria)]

    assert found() == ["parked.drop", "redrive.start", "pipeline.pause"]
    assert found("--who", "ada") == ["parked.drop"]
    assert found("--action", "re*") == ["redrive.start"]
    assert found("--subject", "out") == ["pipeline.pause"]
    assert found("C1", "--since", "1h") == ["parked.drop", "redrive.start"]
    assert found("--until", "2020-01-01T00:00:00Z") == []
    assert found("-n", "1") == ["pipeline.pause"]
    assert office("audit", "search", "--since", "yesterday").exit_code == 2
