"""A worker: one process that runs every pipeline of a project, and the small HTTP service beside it.

There is no scheduler: consumer groups divide partitions and leases among however many workers there are.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import io
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiohttp import web

from trunkline.bus.accounting import lag
from trunkline.bus.accounting.commits import Positions
from trunkline.bus.accounting.ledgerchecks import LedgerChecks
from trunkline.bus.budget.budgets import Budgets
from trunkline.bus.kafka import KafkaSettings, ping
from trunkline.bus.knownoffsets import KnownOffsets
from trunkline.bus.memory import DEFAULT_MEMORY, Shares, divide
from trunkline.bus.names import Names
from trunkline.bus.parking.decisions import Decision
from trunkline.bus.parking.decisions import waiting as waiting_decisions
from trunkline.bus.redrive.job import Surroundings
from trunkline.bus.redrive.runner import JobRunner
from trunkline.bus.sink.accounts import Gates
from trunkline.bus.source.deliveries import AcceptedDeliveries
from trunkline.bus.source.ingress import Ingress
from trunkline.bus.source.listen import Ports, listen
from trunkline.bus.source.publish import Publisher
from trunkline.bus.states import State
from trunkline.bus.topics import (
    Difference,
    declared_topics,
    ensure_topics,
    internal_topics,
    matching_topics,
    pipeline_topics,
    topic_states,
)
from trunkline.bus.worker.applied import project_of, read_applied
from trunkline.bus.worker.board import Board, Report
from trunkline.bus.worker.build import Builder, positions_in, source_publisher
from trunkline.bus.worker.follower import Follower
from trunkline.bus.worker.host import PipelineHost
from trunkline.bus.worker.reported import reported_offsets
from trunkline.bus.worker.wishes import Wish, parse_wish, read_wishes
from trunkline.core.errors import TrunklineError, UnavailableError
from trunkline.core.log import get_logger
from trunkline.core.manifests import Pipeline, Project
from trunkline.core.manifests.check import check
from trunkline.core.manifests.identity import pipeline_identity
from trunkline.registry.client import RegistryClient
from trunkline.registry.kafka_store import KafkaStore
from trunkline.registry.service import registry_app

log = get_logger(__name__)
REPORT_SECONDS = 5.0
REPEAT_SECONDS = 15.0
"""What has not changed is said again so often: idle pipelines are most of what a large worker has, and a report costs the broker too."""
LAG_SECONDS = 10.0
_AT_WORK = {State.RUNNING, State.PAUSED}
LEDGER_SECONDS = 60.0
GC_THRESHOLDS = (50_000, 20, 50)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker is set up. A port of 0 takes a free one. Without `registry_url` the worker serves a registry itself."""

    kafka: KafkaSettings
    names: Names
    home: Path
    registry_url: str | None = None
    registry_options: dict[str, str] = field(default_factory=dict)
    api: tuple[str, int] = ("127.0.0.1", 0)
    ingress: tuple[str, int] = ("127.0.0.1", 0)
    memory: int = DEFAULT_MEMORY
    extend_api: Callable[[web.Application, Worker], None] | None = None


def _shares(memory: int, project: Project) -> Shares:
    """Sinks write too, but seldom more than their trace; a pipeline that runs keeps the share that it began with."""
    streams, sinks, sources = len(project.streams), len(project.sinks), len(project.sources)
    return divide(memory, readers=streams + sinks, sinks=sinks, writers=streams + sources)


class WorkerIdentity:
    """The worker's own id, kept in its data folder so that a restart has the same transactional ids.

    Several workers in one folder take one slot each.
    """

    def __init__(self, home: Path) -> None:
        folder = home / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock: io.TextIOWrapper | None = None
        for slot in range(1000):
            file = (folder / f"{slot}").open("a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            file.seek(0)
            self.id = file.read().strip()
            if not self.id:
                self.id = uuid.uuid4().hex[:12]
                file.write(self.id)
                file.flush()
            self._lock = file
            self.ports = Ports(folder / f"{slot}.ports")
            return
        raise UnavailableError(f"{folder} has no free slot for another worker", code="worker.slots")

    def release(self) -> None:
        """Frees the slot."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class Worker:
    """Runs a project's pipelines until it is closed."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._identity = WorkerIdentity(settings.home)
        self.id = self._identity.id
        self.project = Project()
        self.differences: list[Difference] = []
        self.ingress = Ingress(settings.ingress, self._identity.ports)
        self._admin = settings.kafka.admin()  # kept, so that whoever asks for one is given this one
        self._board = Board(settings.kafka, settings.names)
        self._budgets = Budgets(settings.kafka, settings.names, self.id)
        self._gates = Gates(self._budgets)
        self._accepted = AcceptedDeliveries(settings.kafka, settings.names)
        self._hosts: dict[str, PipelineHost] = {}
        self._identities: dict[str, str] = {}
        self._reported: dict[str, Report] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._background: list[asyncio.Task[None]] = []
        self._measuring: asyncio.Future[None] | None = None
        self._checking: asyncio.Future[None] | None = None
        self._follower: Follower | None = None
        self._jobs: JobRunner | None = None
        self._store: KafkaStore | None = None
        self._runner: web.AppRunner | None = None
        self._registry: RegistryClient | None = None
        self._started_at: dict[str, float] = {}
        self._wishes: dict[str, Wish] = {}
        self._known: dict[str, KnownOffsets] = {}
        self._following_manifests = False
        self._changes = asyncio.Lock()
        self.url = ""
        self.registry_url = settings.registry_url or ""

    @property
    def reports(self) -> list[Report]:
        """How the pipelines stand on this worker."""
        return [host.report() for host in self._hosts.values()]

    async def start(self, project: Project | None = None) -> None:
        """Creates topics, serves registry and API, and starts the pipelines: those of `project`, else what is applied, followed.

        Raises `ManifestError` for a project with problems, and what broker and registry say.
        """
        loop = asyncio.get_running_loop()
        # Batches of thousands of records set off Python's collector all the time, and there is hardly a cycle to find.
        gc.set_threshold(*GC_THRESHOLDS)
        kafka, names = self._settings.kafka, self._settings.names
        await loop.run_in_executor(None, ping, kafka, 5.0)
        await loop.run_in_executor(None, ensure_topics, kafka, internal_topics(names))
        await self._serve()
        self._registry = RegistryClient(self.registry_url, self._settings.registry_options)
        self._following_manifests = project is None
        topics = [
            names.control,
            names.budgets,
            names.decisions,
            *([names.manifests] if self._following_manifests else []),
        ]
        self._follower = Follower(kafka, topics, self._followed, loop)
        # Before anything of them is read: what is changed while the pipelines start is followed too.
        await loop.run_in_executor(None, self._follower.mark)
        self._started_at = await loop.run_in_executor(None, self._board.started_at)
        self._wishes = await loop.run_in_executor(None, read_wishes, kafka, names)
        reported = reported_offsets(await loop.run_in_executor(None, self._board.reports))
        self._known = {name: KnownOffsets(copy) for name, copy in reported.items()}
        if project is None:
            project = project_of(await loop.run_in_executor(None, read_applied, kafka, names))
        self._budgets.start()
        await self.run_project(project)
        await loop.run_in_executor(None, self._follower.start)
        # What was decided after a pipeline had looked and before anybody followed.
        for decision in await loop.run_in_executor(None, waiting_decisions, kafka, names):
            self._decided(decision)
        self._jobs = JobRunner(Surroundings(kafka, names, self._registry, self._publisher, self.id))
        self._jobs.start()
        self._background = [
            asyncio.create_task(self._report_regularly()),
            asyncio.create_task(self._measure_lag()),
            asyncio.create_task(self._check_ledgers()),
        ]

    async def run_project(self, project: Project) -> None:
        """Makes the worker run exactly this project: changed pipelines restart, the others are not disturbed.

        Raises `ManifestError`; then the last good project runs on.
        """
        async with self._changes:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, check, project)
            self.differences = await loop.run_in_executor(None, self._prepare, project)
            wanted = {name: pipeline_identity(project, manifest) for name, manifest in project.pipelines.items()}
            gone = [name for name in self._hosts if self._identities[name] != wanted.get(name)]
            await self._close_hosts(gone)
            self.project = project
            assert self._registry is not None
            shares = _shares(self._settings.memory, project)
            self.ingress.bodies.most = shares.bodies
            builder = Builder(
                replace(self._settings.kafka, shares=shares),
                self._settings.names,
                self._registry,
                project,
                worker=self.id,
                data=self._settings.home,
                gates=self._gates,
                accepted=self._accepted,
            )
            for name, manifest in project.pipelines.items():
                if name not in self._hosts:
                    self._identities[name] = wanted[name]
                    await self._start_host(name, manifest, builder)

    async def close(self) -> None:
        """Ends gracefully: intake ends, what is in flight settles, offsets are committed, then the services end."""
        for task in self._background:
            task.cancel()
        if self._follower is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._follower.stop)
        if self._jobs is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._jobs.stop)
        await self.ingress.stop()
        await self._close_hosts(list(self._hosts))
        await self._budgets.close()
        await asyncio.get_running_loop().run_in_executor(None, self._accepted.close)
        for last in (self._measuring, self._checking):
            if last is not None:
                await asyncio.wait({last}, timeout=15)
                if last.done() and not last.cancelled():
                    last.exception()  # looked at: what a last measurement failed with is nobody's concern
        await asyncio.get_running_loop().run_in_executor(None, self._board.flush)
        if self._registry is not None:
            self._registry.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._store is not None:
            await self._store.close()
        self._identity.release()

    # --- pipelines ---

    def _prepare(self, project: Project) -> list[Difference]:
        """Topics of the manifests, then dead-letter and retry topics, which follow their inputs; and compatibility levels."""
        kafka, names = self._settings.kafka, self._settings.names
        differences = ensure_topics(kafka, declared_topics(project))
        inputs = {topic for pipeline in project.pipelines.values() for topic in getattr(pipeline.spec, "from_", ())}
        existing = topic_states(kafka, matching_topics(kafka, inputs)) if inputs else {}
        ensure_topics(kafka, pipeline_topics(project, names, existing))
        assert self._registry is not None
        for name, topic in project.topics.items():
            if topic.spec.compatibility is not None and not name.endswith(".*"):
                self._registry.set_level(f"{name}-value", topic.spec.compatibility)
        for difference in differences:
            log.warning("topic differs from its manifest", topic=difference.topic, difference=str(difference))
        return differences

    def _publisher(self, pipeline: str) -> Publisher | None:
        """That of a source which this worker runs, or which is applied: for what it has in quarantine."""
        assert self._registry is not None
        kafka, names, project = self._settings.kafka, self._settings.names, self.project
        if pipeline not in project.pipelines:
            project = project_of(read_applied(kafka, names))
            check(project)
        return source_publisher(kafka, names, self._registry, project, pipeline, self.id)

    async def _start_host(self, name: str, manifest: Pipeline, builder: Builder) -> None:
        started = self._started_at.get(name)
        if started is None:
            await asyncio.get_running_loop().run_in_executor(None, self._board.note_start, name, time.time())
            self._started_at[name] = time.time()
        host = PipelineHost(
            manifest,
            builder,
            self.id,
            self.ingress,
            started_at=started,
            known=self._known.setdefault(name, KnownOffsets()),
            changed=self._changed,
        )
        if name in self._wishes:
            host.wish(self._wishes[name])
        self._hosts[name] = host
        self._tasks[name] = asyncio.create_task(host.run(), name=name)

    async def _close_hosts(self, names: Iterable[str]) -> None:
        names = list(names)
        for name in names:
            self._hosts[name].close()
        tasks = [self._tasks[name] for name in names]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=45)
            for task in late:
                log.error("a pipeline did not end in time", pipeline=task.get_name())
                task.cancel()
        for name in names:
            self._changed(self._hosts[name])
            del self._hosts[name], self._tasks[name], self._identities[name]
            self._reported.pop(name, None)

    def _changed(self, host: PipelineHost) -> None:
        self._board.report(host.report())

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            for name, host in self._hosts.items():
                report, last = host.report(), self._reported.get(name)
                if last is None or report.at - last.at >= REPEAT_SECONDS or not report.says_as(last):
                    self._reported[name] = report
                    self._board.report(report)

    async def _measure_lag(self) -> None:
        measure = lag.LagMetrics(self._settings.kafka, self._settings.names)
        while True:
            try:
                # Shielded: `close` waits for the thread, which would ask a broker in vain that ends after the worker.
                self._measuring = asyncio.get_running_loop().run_in_executor(
                    None, measure.update, self._running_positions(), self._standing_still()
                )
                await asyncio.shield(self._measuring)
            except TrunklineError as error:
                log.warning("the lag can't be measured", reason=str(error))
            await asyncio.sleep(LAG_SECONDS)

    def _running_positions(self) -> dict[str, Positions]:
        """How far the pipelines that run here have committed the partitions that they have here."""
        return {
            name: positions_in(host.positions)
            for name, host in self._hosts.items()
            if host.manifest.kind != "Source" and host.state in _AT_WORK
        }

    def _standing_still(self) -> list[str]:
        """The pipelines that do not run here: of them only Kafka knows."""
        return [
            name for name, host in self._hosts.items() if host.manifest.kind != "Source" and host.state not in _AT_WORK
        ]

    async def _check_ledgers(self) -> None:
        checks = LedgerChecks(self._settings.kafka, self._settings.names)
        while True:
            await asyncio.sleep(LEDGER_SECONDS)
            try:
                self._checking = asyncio.get_running_loop().run_in_executor(
                    None, checks.update, self._running_positions()
                )
                await asyncio.shield(self._checking)
            except TrunklineError as error:
                log.warning("the ledgers can't be checked", reason=str(error))

    # --- following Kafka ---

    def _followed(self, topic: str, key: str, value: bytes | None, offset: int) -> None:
        if topic == self._settings.names.budgets:
            self._budgets.noticed(key)
            return
        if topic == self._settings.names.control:
            if value is not None:
                wish, known = parse_wish(value, offset), self._wishes.get(key, Wish())
                if wish.version <= known.version:
                    return  # as it was read at the start, or older
                self._wishes[key] = wish
                if key in self._hosts:
                    self._hosts[key].wish(wish)
            return
        if topic == self._settings.names.decisions:
            if value is not None:
                self._decided(Decision.parse(key, value))
            return
        if self._follower is not None:
            self._background.append(asyncio.create_task(self._reload()))

    def _decided(self, decision: Decision) -> None:
        if decision.pipeline in self._hosts:
            self._hosts[decision.pipeline].decide(decision)

    async def _reload(self) -> None:
        """Manifests changed: runs what is applied now. A bad state leaves the last good one running."""
        try:
            loop = asyncio.get_running_loop()
            applied = await loop.run_in_executor(None, read_applied, self._settings.kafka, self._settings.names)
            await self.run_project(project_of(applied))
        except TrunklineError as error:
            log.error("the applied manifests can't be run; the last good ones run on", reason=str(error))
        finally:
            self._background = [
                task for task in self._background if not task.done() and task is not asyncio.current_task()
            ]

    # --- services ---

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        if not self.registry_url:
            self._store = KafkaStore(self._settings.kafka.for_others(), self._settings.names.schemas)
            await self._store.start()
            app.add_subapp("/registry", registry_app(self._store))
        if self._settings.extend_api is not None:
            self._settings.extend_api(app, self)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        self.url = await listen(
            self._runner, self._settings.api, self._identity.ports, "api", "choose another with --api or TRUNKLINE_API"
        )
        if self._store is not None:
            self.registry_url = f"{self.url}/registry"

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "worker": self.id})

    async def _readyz(self, _request: web.Request) -> web.Response:
        """Ready when every pipeline runs or was told not to, and the broker answers."""
        waiting = [host.name for host in self._hosts.values() if not host.ready]
        return web.json_response(
            {"status": "waiting" if waiting else "ready", "waiting": waiting}, status=503 if waiting else 200
        )
