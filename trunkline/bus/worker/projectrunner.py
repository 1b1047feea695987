"""The pipelines of a worker: a host for each of its project, begun and ended as the project changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from trunkline.bus.knownoffsets import KnownOffsets
from trunkline.bus.memory import Shares, divide
from trunkline.bus.parking.desk import DecisionDesk
from trunkline.bus.sink.accounts import Gates
from trunkline.bus.source.deliveries import AcceptedDeliveries
from trunkline.bus.source.ingress import Ingress
from trunkline.bus.topics import (
    Difference,
    declared_topics,
    ensure_topics,
    matching_topics,
    pipeline_topics,
    topic_states,
)
from trunkline.bus.worker.board import Board, Report
from trunkline.bus.worker.building.bench import Beginning, Bench
from trunkline.bus.worker.building.builder import Builder
from trunkline.bus.worker.host import PipelineHost
from trunkline.bus.worker.remembered import Remembered
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.wishes import Wish
from trunkline.core.log import get_logger
from trunkline.core.manifests import Pipeline, Project
from trunkline.core.manifests.check import check
from trunkline.core.manifests.identity import pipeline_identity
from trunkline.registry.client import RegistryClient

log = get_logger(__name__)
CLOSE_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What the pipelines of a worker share, whatever its project is."""

    board: Board
    ingress: Ingress
    gates: Gates
    accepted: AcceptedDeliveries
    decisions: DecisionDesk


class ProjectRunner:
    """Runs the pipelines of one project at a time. `changed` hears of every new state, `left` of every host that was closed."""

    def __init__(
        self,
        settings: WorkerSettings,
        worker: str,
        shared: Shared,
        *,
        changed: Callable[[PipelineHost], None],
        left: Callable[[PipelineHost], None],
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._shared = shared
        self._changed = changed
        self._left = left
        self._registry: RegistryClient | None = None
        self._remembered = Remembered()
        self._hosts: dict[str, PipelineHost] = {}
        self._identities: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changes = asyncio.Lock()
        self.project = Project()
        self.differences: list[Difference] = []

    def prepare(self, registry: RegistryClient, remembered: Remembered) -> None:
        """Before the first project: the registry to use, and what is known of pipelines that ran before."""
        self._registry, self._remembered = registry, remembered

    @property
    def hosts(self) -> Mapping[str, PipelineHost]:
        """The hosts by their pipelines' names."""
        return self._hosts

    @property
    def reports(self) -> list[Report]:
        """How the pipelines stand on this worker."""
        return [host.report() for host in self._hosts.values()]

    def wish(self, pipeline: str, wish: Wish) -> None:
        """Someone wants something of a pipeline, which may not run here yet. What was read at the start, or is older, is no news."""
        if wish.version <= self._remembered.wishes.get(pipeline, Wish()).version:
            return
        self._remembered.wishes[pipeline] = wish
        if pipeline in self._hosts:
            self._hosts[pipeline].wish(wish)

    async def run_project(self, project: Project) -> None:
        """Makes the worker run exactly this project: changed pipelines restart, the others are not disturbed.

        Raises `ManifestError`; then the last good project runs on.
        """
        async with self._changes:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, check, project)
            self.differences = await loop.run_in_executor(None, self._make_topics, project)
            wanted = {name: pipeline_identity(project, manifest) for name, manifest in project.pipelines.items()}
            await self._close([name for name in self._hosts if self._identities[name] != wanted.get(name)])
            self.project = project
            builder = Builder(self._bench(project, loop))
            for name, manifest in project.pipelines.items():
                if name not in self._hosts:
                    self._identities[name] = wanted[name]
                    await self._begin(name, manifest, builder)

    async def close(self) -> None:
        """Ends every pipeline gracefully."""
        await self._close(list(self._hosts))

    def _bench(self, project: Project, loop: asyncio.AbstractEventLoop) -> Bench:
        shares = shares_of(self._settings.memory, project)
        shared = self._shared
        shared.ingress.bodies.most = shares.bodies
        assert self._registry is not None
        return Bench(
            replace(self._settings.kafka, shares=shares),
            self._settings.names,
            self._registry,
            project,
            self._worker,
            self._settings.home,
            loop,
            shared.gates,
            shared.accepted,
            shared.ingress,
            shared.decisions,
        )

    def _make_topics(self, project: Project) -> list[Difference]:
        """Topics of the manifests, then dead-letter and retry topics, which follow their inputs; and compatibility levels."""
        kafka, names = self._settings.kafka, self._settings.names
        differences = ensure_topics(kafka, declared_topics(project))
        inputs = {topic for pipeline in project.pipelines.values() for topic in pipeline.inputs}
        existing = topic_states(kafka, matching_topics(kafka, inputs)) if inputs else {}
        ensure_topics(kafka, pipeline_topics(project, names, existing))
        assert self._registry is not None
        for name, topic in project.topics.items():
            if topic.spec.compatibility is not None and not name.endswith(".*"):
                self._registry.set_level(f"{name}-value", topic.spec.compatibility)
        for difference in differences:
            log.warning("topic differs from its manifest", topic=difference.topic, difference=str(difference))
        return differences

    async def _begin(self, name: str, manifest: Pipeline, builder: Builder) -> None:
        remembered = self._remembered
        started = remembered.started_at.get(name)
        if started is None:
            remembered.started_at[name] = time.time()
            await asyncio.get_running_loop().run_in_executor(
                None, self._shared.board.note_start, name, remembered.started_at[name]
            )
        beginning = Beginning(started, remembered.known.setdefault(name, KnownOffsets()))
        host = PipelineHost(manifest, builder, self._worker, beginning, changed=self._changed)
        if name in remembered.wishes:
            host.wish(remembered.wishes[name])
        self._hosts[name] = host
        self._tasks[name] = asyncio.create_task(host.run(), name=name)

    async def _close(self, names: Iterable[str]) -> None:
        names = list(names)
        for name in names:
            self._hosts[name].close()
        tasks = [self._tasks[name] for name in names]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            for task in late:
                log.error("a pipeline did not end in time", pipeline=task.get_name())
                task.cancel()
        for name in names:
            self._left(self._hosts[name])
            del self._hosts[name], self._tasks[name], self._identities[name]


def shares_of(memory: int, project: Project) -> Shares:
    """Sinks write too, but seldom more than their trace; a pipeline that runs keeps the share that it began with."""
    streams, sinks, sources = len(project.streams), len(project.sinks), len(project.sources)
    return divide(memory, readers=streams + sinks, sinks=sinks, writers=streams + sources)
