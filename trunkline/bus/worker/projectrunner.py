"""The pipelines of a worker: a host for each of its project, begun and ended as the project changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from trunkline.bus.kafka import KafkaUnusableError
from trunkline.bus.knownoffsets import KnownOffsets
from trunkline.bus.memory import Shares, divide
from trunkline.bus.parking.desk import DecisionDesk
from trunkline.bus.sink.accounts import Gates
from trunkline.bus.source.deliveries import AcceptedDeliveries
from trunkline.bus.source.ingress import Ingress
from trunkline.bus.states import State
from trunkline.bus.topics import Difference
from trunkline.bus.worker import retrying
from trunkline.bus.worker.board import Board, Report
from trunkline.bus.worker.building.bench import Beginning, Bench
from trunkline.bus.worker.building.builder import Builder
from trunkline.bus.worker.host import PipelineHost
from trunkline.bus.worker.neighbours import Neighbours
from trunkline.bus.worker.opening import Opener, Version, unfit_version
from trunkline.bus.worker.remembered import Remembered
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.topicmaking import TopicMaker
from trunkline.bus.worker.topicwatch import TopicNews, Watched
from trunkline.bus.worker.trial import Trials
from trunkline.bus.worker.wanted import Wanted, judged_strictly
from trunkline.bus.worker.wishes import Wish
from trunkline.core.log import get_logger
from trunkline.core.manifests import Project
from trunkline.registry.client import RegistryClient

log = get_logger(__name__)
CLOSE_SECONDS = 45.0
OPENING_THREADS = 4
"""How many pipelines are built at once: what they wait for is the registry and the broker."""
AT_ONCE = 20
"""How many pipelines are begun before the event loop gets a turn."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the pipelines of a worker share, whatever its project is."""

    board: Board
    ingress: Ingress
    gates: Gates
    accepted: AcceptedDeliveries
    decisions: DecisionDesk
    neighbours: Neighbours
    trouble: Callable[[], KafkaUnusableError | None]
    """Why Kafka can't be used now."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """One pipeline as it is to be: its version, and what a host has to know besides."""

    kind: str
    inputs: Sequence[str]
    version: Version


class ProjectRunner:
    """Runs the pipelines of one project at a time.

    `changed` hears of every new state, `left` of every host that was closed, and whether its pipeline is not to be run any more.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        worker: str,
        shared: Shared,
        *,
        changed: Callable[[PipelineHost], None],
        left: Callable[[PipelineHost, bool], None],
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._shared = shared
        self._changed = changed
        self._left = left
        self.trials = Trials(settings.names.namespace)
        self._threads = ThreadPoolExecutor(OPENING_THREADS, thread_name_prefix="opening")
        self._registry: RegistryClient | None = None
        self._topics: TopicMaker | None = None
        self._remembered = Remembered()
        self._hosts: dict[str, PipelineHost] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """Kind and end of pipelines that are closed and settle what is under way."""
        self._waking: dict[str, asyncio.Task[None]] = {}
        """Who tries again what failed with a code that is over for one of them."""
        self._partings = asyncio.Lock()
        """Where hundreds end at once, their last words come in turns with everything else."""
        self._changes = asyncio.Lock()
        self._is_first = True
        self.project = Project()

    def prepare(self, registry: RegistryClient, remembered: Remembered) -> None:
        """Before the first project: the registry to use, and what is known of pipelines that ran before."""
        self._registry, self._remembered = registry, remembered
        self._topics = TopicMaker(self._settings.kafka, self._settings.names, registry)

    @property
    def differences(self) -> list[Difference]:
        """In what topics are not as their manifests say."""
        return [one for found in self._topics.differences.values() for one in found] if self._topics is not None else []

    @property
    def hosts(self) -> Mapping[str, PipelineHost]:
        """The hosts by their pipelines' names."""
        return self._hosts

    @property
    def reports(self) -> list[Report]:
        """How the pipelines stand on this worker."""
        return [host.report() for host in self._hosts.values()]

    def unwish(self, pipeline: str) -> None:
        """Nobody wants anything special of it any more. If it still runs here it is about to end, and goes on as it was wanted."""
        self._remembered.wishes.pop(pipeline, None)

    def wish(self, pipeline: str, wish: Wish) -> None:
        """Someone wants something of a pipeline, which may not run here yet. What was read at the start, or is older, is no news."""
        if wish.version <= self._remembered.wishes.get(pipeline, Wish()).version:
            return
        self._remembered.wishes[pipeline] = wish
        if pipeline in self._hosts:
            self._hosts[pipeline].wish(wish)

    @property
    def secrets(self) -> frozenset[str]:
        """The references of its pipelines whose values may change."""
        return frozenset().union(*(host.secrets for host in self._hosts.values()))

    def secrets_seen(self, marks: Mapping[str, str]) -> None:
        """What the stores hold now, as marks by reference."""
        for host in list(self._hosts.values()):
            host.secrets_seen(marks)

    def watched(self) -> dict[str, Watched]:
        """The topics of the pipelines that run here."""
        names, found = self._settings.names, {}
        for name, host in self._hosts.items():
            manifest = self.project.pipeline(name)
            own, inputs = [names.dead_letters(name)], list(host.inputs)
            if inputs:
                inputs.append(names.retry(name))
                own.append(names.retry(name))
            outputs = [target.topic for target in manifest.targets] if manifest is not None else []
            memory = [names.parked(name)] if host.kind == "Sink" else []
            found[name] = Watched(inputs, host.topic_ids if host.at_work else {}, outputs, own, memory)
        return found

    def kafka_changed(self) -> None:
        """Kafka can be used again, or can't for another reason."""
        for host in list(self._hosts.values()):
            host.kafka_changed()

    def topics_changed(self, news: Mapping[str, TopicNews]) -> None:
        """Topics are not as they were."""
        for name, one in news.items():
            if self._topics is not None and (one.gone or one.grown):
                self._topics.forget(one.gone, grown=name if one.grown else None)
            if name in self._hosts:
                self._hosts[name].topics_changed(one)

    async def run_project(self, project: Project) -> None:
        """As `run`. Raises `ManifestError` where any manifest has a problem; then the last good project runs on."""
        await self.run(await asyncio.get_running_loop().run_in_executor(self._threads, judged_strictly, project))

    async def run(self, wanted: Wanted) -> None:
        """Makes the worker run exactly this: changed pipelines get their new version, the others are not disturbed.

        Pipelines that can't run are FAILED with what is wrong, or keep the version before; those of which that is not known yet are left
        as they are. Raises `RetriableError` and
        `UnavailableError` where the broker does not answer; then everything runs on as it did.
        """
        async with self._changes:
            loop = asyncio.get_running_loop()
            assert self._topics is not None
            anew = [name for name, one in wanted.identities.items() if self._identity(name) != one]
            await loop.run_in_executor(self._threads, self._topics.make, wanted.project, anew)
            await self._learn(
                loop, [name for name in (*anew, *wanted.unfit) if name not in self._remembered.started_at]
            )
            begun = [name for name in (*anew, *wanted.unfit) if name not in self._remembered.started_at]
            await self._note_starts(loop, begun)
            self.project = wanted.project
            plans = self._plans(wanted, self._opener(wanted.project, loop))
            going = [one for one in self._hosts if one not in wanted.pending]
            for name in [one for one in going if one not in plans or plans[one].kind != self._hosts[one].kind]:
                self._leave(name, removed=name not in plans)
            for number, (name, plan) in enumerate(plans.items(), start=1):
                if self._identity(name) != plan.version.identity:
                    self._take(name, plan, new=name in begun)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            if not wanted.pending:
                self._shared.gates.keep(wanted.project)

    async def close(self) -> None:
        """Ends every pipeline gracefully."""
        for task in self._waking.values():
            task.cancel()
        for name in list(self._hosts):
            self._leave(name)
        leaving = [task for _, task in self._leaving.values()]
        if leaving:
            await asyncio.wait(leaving)
        await self.trials.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _identity(self, name: str) -> str | None:
        return self._hosts[name].identity if name in self._hosts else None

    def _opener(self, project: Project, loop: asyncio.AbstractEventLoop) -> Opener:
        shares = shares_of(self._settings.memory, project)
        shared = self._shared
        shared.ingress.bodies.most = shares.bodies
        assert self._registry is not None
        assert self._topics is not None
        bench = Bench(
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
            shared.board,
        )
        return Opener(Builder(bench), self._topics, self.trials, self._threads)

    def _plans(self, wanted: Wanted, opener: Opener) -> dict[str, _Plan]:
        project = wanted.project
        plans = {
            name: _Plan(manifest.kind, manifest.inputs, opener.version(project, manifest, wanted.identities[name]))
            for name, manifest in project.pipelines.items()
        }
        for name, unfit in wanted.unfit.items():
            known = self._hosts.get(name)
            inputs = known.inputs if known is not None and known.kind == unfit.kind else ()
            plans[name] = _Plan(unfit.kind, inputs, unfit_version(unfit))
        return plans

    async def _learn(self, loop: asyncio.AbstractEventLoop, names: Sequence[str]) -> None:
        """Of pipelines that were never here, or were removed, others may know more by now than was remembered at the start."""
        if names and not self._is_first:
            kafka, own, board = self._settings.kafka, self._settings.names, self._shared.board
            newer = await loop.run_in_executor(self._threads, Remembered.read, kafka, own, board)
            self._remembered.learn(newer, names)
        self._is_first = False

    async def _note_starts(self, loop: asyncio.AbstractEventLoop, names: Sequence[str]) -> None:
        """When pipelines run for the first time is remembered: `start: latest` means that moment."""
        now = dict.fromkeys(names, time.time())
        if now:
            await loop.run_in_executor(self._threads, self._shared.board.note_starts, now)
            self._remembered.started_at.update(now)

    def _take(self, name: str, plan: _Plan, *, new: bool) -> None:
        """Begins a pipeline, or gives its host another version."""
        if name in self._hosts:
            self._hosts[name].renew(plan.version, plan.inputs)
            return
        remembered = self._remembered
        started = None if new else remembered.started_at[name]
        host = PipelineHost(
            name,
            plan.kind,
            plan.inputs,
            plan.version,
            self._worker,
            Beginning(started, remembered.known.setdefault(name, KnownOffsets())),
            changed=self._changed,
            elsewhere=self._shared.neighbours.run,
            failed=self._failed,
            mended=self._mended,
            trouble=self._shared.trouble,
        )
        if name in remembered.wishes:
            host.wish(remembered.wishes[name])
        self._hosts[name] = host
        self._tasks[name] = asyncio.create_task(self._run(host), name=name)

    def _failed(self) -> int:
        """How many pipelines failed."""
        return sum(host.state is State.FAILED for host in self._hosts.values())

    def _mended(self, code: str) -> None:
        """What a pipeline had failed with is over: others that failed with it need not wait for their next try."""
        if code not in self._waking:
            self._waking[code] = asyncio.create_task(self._wake(code), name=f"wake {code}")

    async def _wake(self, code: str) -> None:
        """One after the other: the others may be a thousand, each with a system of its own, and still be refused."""
        try:
            for host in list(self._hosts.values()):
                if host.mended(code):
                    await asyncio.sleep(retrying.CROWD_SECONDS)
        finally:
            del self._waking[code]

    async def _run(self, host: PipelineHost) -> None:
        """Runs a host, after what was called so before has ended; a source after all sources that leave: they may share an address."""
        before = [
            task for name, (kind, task) in self._leaving.items() if name == host.name or (kind == host.kind == "Source")
        ]
        if before:
            await asyncio.wait(before)
        await host.run()

    def _leave(self, name: str, *, removed: bool = False) -> None:
        """Closes a pipeline, which settles what is under way and then is gone; `removed` where it is not to be run any more at all."""
        host, running = self._hosts.pop(name), self._tasks.pop(name)
        host.close()
        if removed:
            self._remembered.forget(name)
        ending = asyncio.create_task(self._end(host, running, removed), name=f"leave {name}")
        self._leaving[name] = (host.kind, ending)

    async def _end(self, host: PipelineHost, running: asyncio.Task[None], removed: bool) -> None:
        _, late = await asyncio.wait([running], timeout=CLOSE_SECONDS)
        if late:
            log.error("a pipeline did not end in time", pipeline=host.name)
            running.cancel()
        if removed:
            self._shared.ingress.forget(host.name)
        async with self._partings:
            self._left(host, removed)
            await asyncio.sleep(0)
        if self._leaving.get(host.name, (None, None))[1] is asyncio.current_task():
            del self._leaving[host.name]


def shares_of(memory: int, project: Project) -> Shares:
    """Sinks write too, but seldom more than their trace; a pipeline that runs keeps the share that it began with."""
    streams, sinks, sources = len(project.streams), len(project.sinks), len(project.sources)
    return divide(memory, readers=streams + sinks, sinks=sinks, writers=streams + sources)
