"""A worker: one process that runs every pipeline of a project, and the small HTTP service beside it.

There is no scheduler: consumer groups divide partitions and leases among however many workers there are. Here its rooms are joined,
begun in their order and ended in the other: `projectrunner.py` runs the pipelines, `services.py` serves, `follower.py` hears what
people and other workers write, `reporting.py` and `measuring.py` tell how it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from trunkline.bus.budget.budgets import Budgets
from trunkline.bus.kafka import KafkaHealth, ping
from trunkline.bus.parking.decisions import Decision
from trunkline.bus.parking.decisions import waiting as waiting_decisions
from trunkline.bus.parking.desk import DecisionDesk
from trunkline.bus.redrive.job import Surroundings
from trunkline.bus.redrive.runner import JobRunner
from trunkline.bus.sink.accounts import Gates
from trunkline.bus.source.deliveries import AcceptedDeliveries
from trunkline.bus.source.ingress import Ingress
from trunkline.bus.source.publish import Publisher
from trunkline.bus.topics import Difference, ensure_topics, internal_topics
from trunkline.bus.worker.applied import gather_applied, pipelines_of, read_applied
from trunkline.bus.worker.attended import attended
from trunkline.bus.worker.auditkeeper import AuditKeeper
from trunkline.bus.worker.board import Board, Report
from trunkline.bus.worker.building.sources import source_publisher
from trunkline.bus.worker.follower import Follower, Heard
from trunkline.bus.worker.heartbeats import Heartbeats
from trunkline.bus.worker.host import PipelineHost
from trunkline.bus.worker.identity import WorkerIdentity
from trunkline.bus.worker.inventory import take_inventory
from trunkline.bus.worker.lagmetrics import LagMetrics
from trunkline.bus.worker.loglevels import take_level
from trunkline.bus.worker.measuring import Measuring
from trunkline.bus.worker.neighbours import Neighbours
from trunkline.bus.worker.principals import USED_SECONDS, Principals
from trunkline.bus.worker.projectrunner import ProjectRunner, Shared
from trunkline.bus.worker.readiness import Ready
from trunkline.bus.worker.registrymeasuring import registry_measuring
from trunkline.bus.worker.reloading import Reloading
from trunkline.bus.worker.remembered import Remembered
from trunkline.bus.worker.reporting import Reporting
from trunkline.bus.worker.services import Services
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.sourcemetrics import SourceMetrics
from trunkline.bus.worker.watches import measurements
from trunkline.bus.worker.wishes import parse_wish
from trunkline.core.manifests import Project
from trunkline.core.manifests.check import examine
from trunkline.core.metrics import computed
from trunkline.core.secret import Secret
from trunkline.core.secretpolicy import protect
from trunkline.core.subjects import Subjects
from trunkline.registry.client import RegistryClient

GC_THRESHOLDS = (10_000, 5, 1_000)
"""A collection of the middle generation looks at some sixty thousand objects at most: the loop stands still for as long, 50 ms."""


class Worker:
    """Runs a project's pipelines until it is closed. `extend_api` adds to what it serves over HTTP."""

    def __init__(
        self, settings: WorkerSettings, *, extend_api: Callable[[web.Application, Worker], None] | None = None
    ) -> None:
        self._health = KafkaHealth(settings.kafka, explain=settings.explain)
        self.settings = self._settings = settings = replace(settings, kafka=self._health.settings)
        self._extend_api = extend_api
        kafka, names = settings.kafka, settings.names
        protect(settings.home)
        self._identity = WorkerIdentity(settings.home)
        self.id = self._identity.id
        doors, ports = settings.doors, self._identity.ports
        self.ingress = Ingress(doors.ingress(settings.ingress, ports))
        self._admin = kafka.admin()  # kept, so that whoever asks for one is given this one
        self._board = Board(kafka, names)
        self._budgets = Budgets(kafka, names, self.id)
        self._accepted = AcceptedDeliveries(kafka, names)
        self._decisions = DecisionDesk()
        self._neighbours = Neighbours(self.id)
        shared = Shared(
            self._board,
            self.ingress,
            Gates(self._budgets),
            self._accepted,
            self._decisions,
            self._neighbours,
            self._health.trouble,
        )
        self._reporting = Reporting(self._board, lambda: self._runner.hosts)
        self._runner = ProjectRunner(
            settings, self.id, shared, changed=self._reporting.changed, left=self._reporting.left
        )
        self._reloading = Reloading(kafka, names, self._runner)
        self._ready = Ready(self._health, lambda: self._runner.hosts)
        self.principals = Principals(kafka, names, self.id)
        self.audit = AuditKeeper(kafka, names, settings.home, self.id)
        self._ready.audit = self.audit.status
        listener, directory = doors.api(settings.api, ports), self.principals.directory
        self._services = Services(settings, listener, self.id, self._ready, directory, self._owner_of)
        self._heartbeats = Heartbeats(
            self._board, self.id, url=lambda: self.url, pipelines=lambda: len(self._runner.hosts)
        )
        self._measured = [
            registry_measuring(lambda: self._registry, lambda: self.hosts),
            *measurements(kafka, names, self._runner),
            Measuring(
                self.principals.tell_used,
                every=USED_SECONDS,
                first=USED_SECONDS,
                complaint="the use of keys can't be told",
            ),
        ]
        self.lag = LagMetrics(kafka, names, self._runner.hosts.values, self._neighbours)
        self._computed = (self.lag.samples, SourceMetrics(self._runner.hosts.values).samples)
        self._follower: Follower | None = None
        self._jobs: JobRunner | None = None
        self._registry: RegistryClient | None = None

    @property
    def reports(self) -> list[Report]:
        """How the pipelines stand on this worker."""
        return self._runner.reports

    @property
    def hosts(self) -> list[PipelineHost]:
        """Its pipelines' hosts."""
        return list(self._runner.hosts.values())

    @property
    def project(self) -> Project:
        """What it runs."""
        return self._runner.project

    @property
    def differences(self) -> list[Difference]:
        """In what topics are not as their manifests say."""
        return self._runner.differences

    @property
    def url(self) -> str:
        """Where it serves; empty before `start`."""
        return self._services.url

    @property
    def local_url(self) -> str:
        """Where programs of this machine reach what it serves."""
        return self._services.local_url

    @property
    def own_key(self) -> Secret:
        """With which programs of its user sign in there."""
        return self._services.own_key

    @property
    def registry_url(self) -> str:
        """The schema registry that it uses, which may be its own."""
        return self._services.registry_url

    async def start(self, project: Project | None = None) -> None:
        """Creates topics, serves registry and API, and starts the pipelines: those of `project`, else what is applied, followed.

        Raises `ManifestError` for a `project` with problems, and what broker and registry say. Of what is applied, each manifest
        with a problem stops its own pipeline.
        """
        loop = asyncio.get_running_loop()
        # Batches of thousands of records set off Python's collector all the time, and there is hardly a cycle to find.
        gc.set_threshold(*GC_THRESHOLDS)
        kafka, names, extend = self._settings.kafka, self._settings.names, self._extend_api
        await loop.run_in_executor(None, ping, kafka, 5.0)
        self._health.on_change(lambda: self._post(loop, self._runner.kafka_changed))
        self._health.start()
        await loop.run_in_executor(None, ensure_topics, kafka, internal_topics(names))
        self._follower = Follower(kafka, self._heard(applied=project is None), loop)
        self._ready.unheard = self._follower.unheard
        # Before anything of them is read: what is changed while the pipelines start is followed too.
        await loop.run_in_executor(None, self._follower.mark)
        for key, value in await loop.run_in_executor(None, self.principals.read):
            self.principals.heard(key, value)
        await self._services.start(lambda app: extend(app, self) if extend is not None else None)
        self._registry = RegistryClient(self.registry_url, self._services.registry_options)
        remembered = await loop.run_in_executor(None, Remembered.read, kafka, names, self._board)
        self._neighbours.begin(remembered.reports)
        self._runner.prepare(self._registry, remembered)
        self._budgets.start()
        self._heartbeats.start()
        if project is not None:
            await self.run_project(project)
        else:
            await self._reloading.run_applied()
            self._reloading.start()
        await loop.run_in_executor(None, self._follower.start)
        # What was decided after a pipeline had looked and before anybody followed.
        for decision in await loop.run_in_executor(None, waiting_decisions, kafka, names):
            self._decisions.hand(decision)
        self._jobs = JobRunner(
            Surroundings(kafka, names, self._registry, self._publisher, self.id, self._attended, self._subjects_of)
        )
        self._jobs.start()
        self._reporting.start()
        self.audit.start()
        inventory = await loop.run_in_executor(None, take_inventory, self.id)
        self._board.say_inventory(inventory)
        for one in self._measured:
            one.start()
        for samples in self._computed:
            computed.add(samples)
        self._ready.started = True

    def _owner_of(self, name: str) -> str | None:
        return self.project.owner_of(name)

    def _subjects_of(self, topic: str) -> Subjects:
        return self.project.subjects_of(topic)

    async def run_project(self, project: Project) -> None:
        """See `ProjectRunner.run_project`."""
        await self._runner.run_project(project)

    async def close(self) -> None:
        """Ends gracefully: intake ends, what is in flight settles, offsets are committed, then the services end."""
        loop = asyncio.get_running_loop()
        self._reporting.stop()
        self._reloading.stop()
        for one in self._measured:
            one.stop()
        for samples in self._computed:
            computed.remove(samples)
        await self.audit.close()
        if self._follower is not None:
            await loop.run_in_executor(None, self._follower.stop)
        if self._jobs is not None:
            await loop.run_in_executor(None, self._jobs.stop)
        await self.ingress.stop()
        await self._runner.close()
        await self._budgets.close()
        await loop.run_in_executor(None, self._accepted.close)
        for one in self._measured:
            await one.close()
        await self.lag.close()
        self._heartbeats.stop()
        self._board.withdraw_inventory(self.id)
        await loop.run_in_executor(None, self._board.flush)
        if self._registry is not None:
            self._registry.close()
        await self._services.close()
        self._health.close()
        self._identity.release()

    def _heard(self, *, applied: bool) -> dict[str, Heard]:
        """Who hears what people and other workers write."""
        names = self._settings.names
        heard: dict[str, Heard] = {
            names.control: self._wished,
            names.principals: self.principals.heard,
            names.budgets: lambda key, _value, _offset: self._budgets.noticed(key),
            names.decisions: self._decided,
            names.status: self._neighbours.heard,
            names.audit: self.audit.heard,
        }
        if applied:
            heard[names.manifests] = self._reloading.noticed
        return heard

    def _wished(self, key: str, value: bytes | None, offset: int) -> None:
        if take_level(self.id, key, value):
            return
        if value is not None:
            self._runner.wish(key, parse_wish(value, offset))
        else:
            self._runner.unwish(key)

    def _decided(self, key: str, value: bytes | None, _offset: int) -> None:
        if value is not None:
            self._decisions.hand(Decision.parse(key, value))

    def _publisher(self, pipeline: str) -> Publisher | None:
        """That of a source which this worker runs, or which is applied: for what it has in quarantine."""
        assert self._registry is not None
        kafka, names, project = self._settings.kafka, self._settings.names, self.project
        if pipeline not in project.pipelines:
            found = examine(gather_applied(read_applied(kafka, names)), admit=self._reloading.admission.admit)
            found.require(pipeline)
            project = found.project
        return source_publisher(kafka, names, self._registry, project, pipeline, self.id)

    def _attended(self, pipeline: str) -> bool:
        """Whether anybody runs a pipeline, or will as soon as a worker is there."""
        if pipeline in self.project.pipelines:
            return True
        applied = read_applied(self._settings.kafka, self._settings.names)
        return attended(pipelines_of(applied), self._board.reports(), pipeline)

    @staticmethod
    def _post(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(function)

    # --- what is measured ---

    async def measure(self) -> None:
        """Brings what is computed for metrics up to now, where that takes a question to Kafka. Ends within some seconds."""
        await self.lag.refresh()
