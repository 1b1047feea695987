"""What is applied while a worker runs: each pipeline has its own fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bus_harness import Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from conftest import KafkaUnderTest

from trunkline.bus.kafka import produce_and_wait
from trunkline.bus.states import State
from trunkline.bus.worker.applied import as_data, plan
from trunkline.bus.worker.applying import read_state, write_changes
from trunkline.bus.worker.worker import Worker, WorkerSettings
from trunkline.core.manifests import load_text

pytestmark = pytest.mark.kafka


class Applied:
    """A worker that follows what is applied, and somebody who applies without being asked whether it makes sense."""

    def __init__(self, bus: Bus, url: str) -> None:
        self.bus = bus
        self.manifests: dict[str, str] = {"api": http_connection("api", url)}

    async def start(self) -> None:
        self.bus.worker = Worker(
            WorkerSettings(self.bus.settings, self.bus.names, self.bus.home, registry_url=self.bus.registry_url)
        )
        await self.bus.worker.start()
        await self.apply()

    async def apply(self, **manifests: str) -> None:
        """Adds manifests, or replaces those of the same names; no text takes one away."""
        for name, text in manifests.items():
            if text:
                self.manifests[name] = text
            else:
                del self.manifests[name]
        await asyncio.to_thread(self._write)

    def _write(self) -> None:
        settings, names = self.bus.settings, self.bus.names
        after = as_data(load_text("\n---\n".join(self.manifests.values())))
        seen = read_state(settings, names)
        changes = plan(seen.manifests, after, prune=True)
        write_changes(settings, names, changes, after, by="a test", seen=seen, replan=lambda _now: changes)

    def sink(self, name: str, topic: str, extra: str = "", **more: str) -> str:
        return topic_manifest(topic) + http_sink(name, topic, connection="api", extra=extra, **more)

    def state(self, pipeline: str) -> State | None:
        assert self.bus.worker is not None
        return next((one.state for one in self.bus.worker.reports if one.pipeline == pipeline), None)

    async def until(self, pipeline: str, state: State) -> None:
        await self.bus.until(lambda: self.state(pipeline) is state, f"{pipeline} {state}")


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def applied(kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path: Path) -> AsyncIterator[Applied]:
    async with bus(kafka.bootstrap, tmp_path / "home") as made:
        found = Applied(made, endpoint.url)
        await found.start()
        yield found


async def test_a_manifest_that_cannot_run_stops_its_own_pipeline_only(
    applied: Applied, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = applied.bus
    topic, other = running.name("orders"), running.name("others")
    await applied.apply(good=applied.sink("good", topic))
    await applied.until("good", State.RUNNING)
    since = running.report("good").since
    secret = "spec: {connector: http, config: {base_url: 'http://127.0.0.1:9', auth: {type: bearer, token: '${env:NOT_SET}'}}}"
    away = f"---\napiVersion: trunkline/v1\nkind: Connection\nmetadata: {{name: away}}\n{secret}\n"
    await applied.apply(away=away, secretive=topic_manifest(other) + http_sink("secretive", other, connection="away"))
    await applied.until("secretive", State.FAILED)
    report = running.report("secretive")
    assert report.code == "secret.missing"
    assert "NOT_SET" in (report.reason or "")
    # What comes after it is not held up, and who ran before was not disturbed.
    await applied.apply(later=applied.sink("later", running.name("later")))
    await applied.until("later", State.RUNNING)
    assert running.report("good").since == since
    await running.send_orders(topic, [order(1)])
    await running.until(lambda: endpoint.ids("/good") == [1], "delivered")
    # A worker that starts with it runs all the others.
    await running.stop()
    await applied.start()
    for name, state in (("good", State.RUNNING), ("later", State.RUNNING), ("secretive", State.FAILED)):
        await applied.until(name, state)


async def test_a_new_version_that_cannot_open_leaves_the_one_before_running(
    applied: Applied, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, topic = applied.bus, applied.bus.name("orders")
    await applied.apply(out=applied.sink("out", topic))
    await applied.until("out", State.RUNNING)
    before = running.report("out")
    broken = applied.sink("out", topic, config=", headers: {x-key: '${env:TEST_KEY}'}")
    await applied.apply(out=broken)
    await running.until(lambda: running.report("out").code == "version.refused", "refused")
    report = running.report("out")
    assert (report.state, report.since, report.version) == (State.RUNNING, before.since, before.version)
    assert "TEST_KEY" in (report.reason or "")
    await running.send_orders(topic, [order(1)])
    await running.until(lambda: endpoint.ids("/out") == [1], "delivered by the version before")
    monkeypatch.setenv("TEST_KEY", "k1")
    await running.wish("out", restart=1)
    await running.until(lambda: running.report("out").version == running.report("out").wanted, "renewed")
    await running.send_orders(topic, [order(2)])
    await running.until(lambda: endpoint.ids("/out") == [1, 2], "delivered by the new version")
    assert endpoint.to("/out")[1].headers["x-key"] == "k1"
    assert running.report("out").cause is None


async def test_of_two_versions_in_a_row_the_last_one_runs(applied: Applied, endpoint: Endpoint) -> None:
    running, topic = applied.bus, applied.bus.name("orders")
    await applied.apply(out=applied.sink("out", topic))
    await applied.until("out", State.RUNNING)
    assert running.worker is not None
    (host,) = running.worker.hosts
    endpoint.hold = asyncio.Event()
    await running.send_orders(topic, [order(1)])
    await running.until(lambda: endpoint.ids("/out") == [1], "a call under way")
    await applied.apply(out=applied.sink("out", topic, config=", headers: {x-key: second}"))
    await running.until(lambda: host._versions._ready is not None, "the second version waits for the call")
    second = host._versions._ready
    await applied.apply(out=applied.sink("out", topic, config=", headers: {x-key: third}"))
    await running.until(
        lambda: host._versions._ready not in {None, second} or host._runtime is None, "the third one is there"
    )
    endpoint.hold.set()
    endpoint.hold = None
    await running.until(lambda: running.report("out").version == running.report("out").wanted, "renewed")
    await running.send_orders(topic, [order(2)])
    await running.until(lambda: 2 in endpoint.ids("/out"), "delivered")
    assert endpoint.to("/out")[-1].headers["x-key"] == "third"


async def test_while_a_version_is_being_opened_the_failure_of_the_one_before_is_not_said_to_be_its_own(
    applied: Applied, endpoint: Endpoint
) -> None:
    running, topic = applied.bus, applied.bus.name("orders")
    await applied.apply(out=applied.sink("out", topic, config=", headers: {x-key: '${env:NOT_SET}'}"))
    await applied.until("out", State.FAILED)
    failed = running.report("out").wanted
    endpoint.hold = asyncio.Event()
    for probe in ("/second", "/third"):  # the opening of the second version is given up for the third one
        await applied.apply(out=applied.sink("out", topic, config=f", probe: {probe}"))
        await running.until(lambda probe=probe: endpoint.to(probe), "the probe of the new version")  # type: ignore[misc]
        report = running.report("out")
        assert (report.state, report.code, report.wanted) == (State.FAILED, "secret.missing", failed)
    endpoint.hold.set()
    endpoint.hold = None
    await applied.until("out", State.RUNNING)
    assert running.report("out").version == running.report("out").wanted != failed


async def test_a_changed_owner_or_label_restarts_nothing(applied: Applied) -> None:
    running, topic = applied.bus, applied.bus.name("orders")
    text = applied.sink("out", topic)
    await applied.apply(out=text, other=applied.sink("other", running.name("other")))
    await applied.until("out", State.RUNNING)
    since = running.report("out").since
    owned = text.replace("metadata: {name: out}", "metadata: {name: out, owner: a@example.com, labels: {team: a}}")
    await applied.apply(out=owned, other="")
    await running.until(lambda: applied.state("other") is None, "the other one gone")
    assert running.report("out").since == since
    assert running.worker is not None
    assert running.worker.project.sinks["out"].metadata.owner == "a@example.com"


async def test_the_records_of_one_apply_are_one_reload(applied: Applied, monkeypatch: pytest.MonkeyPatch) -> None:
    running = applied.bus
    with counted(applied) as reloads:
        await applied.apply(**{f"t{n}": topic_manifest(running.name(f"t{n}")) for n in range(30)})
        assert running.worker is not None
        worker = running.worker
        await running.until(lambda: len(worker.project.topics) == 30, "all known")
    assert len(reloads) <= 2


@contextmanager
def counted(applied: Applied):  # type: ignore[no-untyped-def]
    """The times that the worker ran anew what is applied."""
    assert applied.bus.worker is not None
    runner = applied.bus.worker._runner
    run, found = runner.run, []

    async def noted(wanted: object) -> None:
        found.append(1)
        await run(wanted)  # type: ignore[arg-type]

    runner.run = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        runner.run = run  # type: ignore[method-assign]


async def test_a_record_that_is_no_manifest_stops_its_own_pipeline_only(applied: Applied) -> None:
    running = applied.bus
    producer = running.settings.producer()
    for key, value in ((b"Sink/odd", b"\xff no JSON"), (b"Sink/newer", b'{"v": 99, "manifest": {}}'), (b"junk", b"7")):
        await asyncio.to_thread(produce_and_wait, producer, running.names.manifests, value, key)
    await applied.until("odd", State.FAILED)
    await applied.until("newer", State.FAILED)
    assert "newer Trunkline" in (running.report("newer").reason or "")
    seen = await asyncio.to_thread(read_state, running.settings, running.names)
    assert "Sink/odd" in seen.manifests
    applied.manifests.clear()
    await applied.apply(api=http_connection("api", "http://127.0.0.1:9"), good=applied.sink("good", running.name("a")))
    await applied.until("good", State.RUNNING)
