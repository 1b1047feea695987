"""Row 12: bad records come while their dead letters can't be saved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.direct import Door, Record, event_encoder, letter_id, registry
from tests.chaos.faults.brokers import KILL, Broker
from tests.chaos.faults.http_sink import HttpSinkServer, Rule
from tests.chaos.faults.processes import Fleet
from tests.chaos.history import DeadLetter, History
from tests.chaos.scene import EVENT, PATIENCE
from tests.integration.bus_harness import delete_topic, http_connection, http_sink, set_topic, topic_manifest
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.states import State
from trunkline.bus.topics import TopicPlan, ensure_topics
from trunkline.bus.worker.board import Board, Report
from trunkline.bus.worker.wishes import want
from trunkline.core.errors import TrunklineError
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Encoder

MISSING, DENIED, SMALL, DOWN = "missing", "denied", "small", "down"
STOPPING = (MISSING, DENIED, SMALL)
CASES = (*STOPPING, DOWN)
STOPPED = "pipeline FAILED"
ANSWERED = "refused while the broker was down"
USER, PASSWORD = "worker", "a password of the fault campaign"
KEYS = 10
PARTITIONS = 2
BAD_BYTES = 4_000
SMALL_BYTES = 2_000


@row(
    12,
    "dead letters refused",
    load="{bad:,} bad records among {good:,} good ones, for each of four sinks",
    fault="the dead-letter topic is deleted, denied by an ACL, too small, or down with the broker",
    full={"bad": 200, "good": 400},
    short={"bad": 10, "good": 20},
    minutes=5,
)
async def dead_letters_refused(run: Run) -> None:
    """The pipeline stops with the reason, no commit passes a bad record, and after the repair each is saved."""
    broker = await run.own_broker(authorizer=True)
    admin = KafkaSettings(broker.direct)
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        async with registry() as (url, client):
            world = _World(run, broker, admin, server, client)
            await asyncio.to_thread(world.sign_in)
            with world.workers(url) as workers:
                await world.until_running(workers)
                await world.break_letters()
                for case in STOPPING:
                    await asyncio.to_thread(world.doors[case].write, await world.records(case))
                for case in STOPPING:
                    await world.until_stopped(case, workers)
                await world.refuse_while_down(workers)
                await asyncio.to_thread(world.nothing_passed)
                await world.repair()
                await world.until_settled(workers)
                run.note("worker ended by a signal", len(workers.crashed))
            history = await asyncio.to_thread(world.history)
    run.judge(history, [Promise(case, (world.topic(case),)) for case in CASES])
    for case in CASES:
        letters = [one.id for one in history.of(DeadLetter) if one.route == case]
        run.note(f"{case}: dead letters", f"{len(set(letters))} of {run['bad']}")
        run.claim(set(letters) == world.bad[case], f"{case}: {len(set(letters))} of {run['bad']} were saved")
    run.must_fire(STOPPED, len(STOPPING))
    run.must_fire(KILL, 1)
    run.must_fire(ANSWERED, 1)


@dataclass
class _World:
    """Four sinks, a topic for each, and what breaks and mends their dead-letter topics."""

    run: Run
    broker: Broker
    admin: KafkaSettings
    server: HttpSinkServer
    registry: RegistryClient
    names: Names = field(default_factory=lambda: Names("chaos12"))
    doors: dict[str, Door] = field(default_factory=dict)
    bad: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.doors = {case: Door(self.admin, self.topic(case)) for case in CASES}
        self.board = Board(self.admin, self.names)
        self.ledgers = gather.Ledgers(self.admin, self.names)

    def topic(self, case: str) -> str:
        """The topic that the sink of a case reads."""
        return f"{self.names.namespace}.{case}.in"

    # --- the worker ---

    def sign_in(self) -> None:
        """Makes the workers' user, who may do everything until something is denied to him."""
        credential = UserScramCredentialUpsertion(
            USER, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode()
        )
        kafka = self.admin.admin()
        kafka.alter_user_scram_credentials([credential])[USER].result(20)
        kinds = (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)
        allowed = [_acl(kind, "*", AclOperation.ALL, AclPermissionType.ALLOW) for kind in kinds]
        allowed.append(_acl(ResourceType.BROKER, "kafka-cluster", AclOperation.ALL, AclPermissionType.ALLOW))
        _wait(kafka.create_acls(allowed))

    def workers(self, registry_url: str) -> Fleet:
        """A worker that runs the four sinks."""
        project = self.run.folder / "project.yaml"
        text = [http_connection("peer", self.server.url)]
        for case in CASES:
            text += [
                topic_manifest(self.topic(case), PARTITIONS, schema=EVENT),
                http_sink(case, self.topic(case), connection="peer"),
            ]
        project.write_text("".join(text), encoding="utf-8")
        options = {**self.broker.client_options, "sasl.username": USER, "sasl.password": PASSWORD}
        environment = {f"TRUNKLINE_KAFKA_{name.upper().replace('.', '_')}": value for name, value in options.items()}
        environment["TRUNKLINE_REGISTRY_URL"] = registry_url
        return Fleet(self.broker.bootstrap, self.names.namespace, project, self.run.folder, environment=environment)

    def reports(self) -> dict[str, Report]:
        """How the pipelines stand."""
        return {one.pipeline: one for one in self.board.reports()}

    async def until_running(self, workers: Fleet) -> None:
        """Waits until all four run."""
        await _until(
            lambda: sum(one.state is State.RUNNING for one in self.reports().values()) == len(CASES),
            "all sinks running",
            workers,
        )

    async def until_stopped(self, case: str, workers: Fleet) -> None:
        """Waits until a sink has failed, again after its first restart, which is at once."""
        await _until(
            lambda: (one := self.reports()[case]).state is State.FAILED and one.failures >= 2, f"{case} FAILED", workers
        )
        report = self.reports()[case]
        self.run.claim(report.code == "deadletters.failed", f"{case}: failed with {report.code}: {report.reason}")
        self.run.fires({STOPPED: 1})

    async def until_settled(self, workers: Fleet) -> None:
        """Waits until the sinks' ledgers account for every record."""
        for case in CASES:
            await _until(
                lambda case=case: (  # type: ignore[misc]
                    self.ledgers.read(case, self.topic(case)) >= self.run["bad"] + self.run["good"]
                ),
                f"{case} settled",
                workers,
            )
        await asyncio.to_thread(self.ledgers.close)

    # --- what is wrong ---

    async def records(self, case: str) -> list[Record]:
        """Good records and bad ones in any order; the sink's server refuses the bad ones with a 422 from now on."""
        encoder: Encoder = await event_encoder(self.registry, self.topic(case))
        chance = self.run.chance
        bad = [True] * self.run["bad"] + [False] * self.run["good"]
        chance.shuffle(bad)
        sequences = [0] * KEYS
        records = []
        for number, is_bad in enumerate(bad):
            key = chance.randrange(KEYS)
            name = f"{case}-{number}"
            event = {"id": name, "key": f"k{key}", "sequence": sequences[key]}
            padding = chance.randbytes(BAD_BYTES // 2).hex() if is_bad else ""
            value = encoder.encode({**event, "padding": padding})
            records.append(Record(name, value, f"k{key}", sequences[key], f"k{key}".encode()))
            sequences[key] += 1
        self.bad[case] = {one.id for one, is_bad in zip(records, bad, strict=True) if is_bad}
        await self.refuse(hold=DOWN)
        return records

    async def refuse(self, *, hold: str = "") -> None:
        """The sink's server refuses bad records; those of one case only when this is called again."""
        rules = [Rule(422, f"/{name}", tuple(sorted(ids)), held=name == hold) for name, ids in self.bad.items()]
        await asyncio.to_thread(self.server.script, *rules)

    async def break_letters(self) -> None:
        """One dead-letter topic is gone, one is denied, one takes only what is small."""
        await delete_topic(self.admin, self.names.dead_letters(MISSING))
        kafka = self.admin.admin()
        await asyncio.to_thread(_wait, kafka.create_acls([self._denial()]))
        await set_topic(self.admin, self.names.dead_letters(SMALL), max_message_bytes=str(SMALL_BYTES))

    async def repair(self) -> None:
        """What a person does who read the reasons: mends each topic, and starts its pipeline again."""
        plan = TopicPlan(self.names.dead_letters(MISSING), PARTITIONS)
        await asyncio.to_thread(ensure_topics, self.admin, [plan])
        kafka = self.admin.admin()
        denial = self._denial()
        exactly = AclBindingFilter(
            denial.restype,
            denial.name,
            denial.resource_pattern_type,
            denial.principal,
            denial.host,
            denial.operation,
            denial.permission_type,
        )
        await asyncio.to_thread(_wait, kafka.delete_acls([exactly]))
        await set_topic(self.admin, self.names.dead_letters(SMALL), max_message_bytes="2000000")
        for case in STOPPING:
            await asyncio.to_thread(want, self.admin, self.names, [case], by="a person", restart=True)

    def _denial(self) -> AclBinding:
        topic = self.names.dead_letters(DENIED)
        return _acl(ResourceType.TOPIC, topic, AclOperation.WRITE, AclPermissionType.DENY)

    async def refuse_while_down(self, workers: Fleet) -> None:
        """Kills the broker after bad records were read and before they are refused; it comes back after that."""
        records = await self.records(DOWN)
        await asyncio.to_thread(self.doors[DOWN].write, records)
        good = {one.id for one in records} - self.bad[DOWN]
        await _until(lambda: any(call.id in good for call in self.server.calls()), "calls of the case down", workers)
        await asyncio.to_thread(self.broker.kill)
        killed_at = time.time()
        await self.refuse()

        def answered() -> int:
            calls = self.server.calls()
            return sum(call.path == f"/{DOWN}" and call.answer == "422" and call.at > killed_at for call in calls)

        await _until(answered, "refusals while the broker is down", workers)
        self.run.fires({ANSWERED: answered()})
        await asyncio.to_thread(self.broker.start)

    # --- what came of it ---

    def nothing_passed(self) -> None:
        """No commit has passed a bad record whose dead letter could not be saved."""
        for case in STOPPING:
            commits = gather.commits(self.admin, self.names, [case])
            reached = {one.partition: one.offset for one in commits}
            for place in self.doors[case].places():
                passed = place.id in self.bad[case] and reached.get(place.partition, 0) > place.offset
                self.run.claim(not passed, f"{case}: a commit passed {place.id}, which is saved nowhere")
        for case in (DENIED, SMALL):
            saved = sum(1 for _ in gather.dead_letters(self.admin, self.names, case, letter_id))
            self.run.claim(not saved, f"{case}: {saved} dead letters were saved, so nothing was wrong")

    def history(self) -> History:
        """Everything that is known of the run."""
        history = History(fact for door in self.doors.values() for fact in door.facts)
        for case in CASES:
            history.extend(gather.dead_letters(self.admin, self.names, case, letter_id))
        history.extend(gather.commits(self.admin, self.names, CASES))
        history.extend(self.server.facts({f"/{case}": case for case in CASES}))
        return history


def _acl(kind: ResourceType, name: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    return AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", operation, permission)


def _wait(answers: object) -> None:
    assert isinstance(answers, dict)
    for answer in answers.values():
        answer.result(20)


async def _until(condition: Callable[[], object], what: str, workers: Fleet, seconds: float = PATIENCE) -> None:
    """Waits until a condition holds; it is asked in a thread, and a broker that is away is asked again."""

    def holds() -> bool:
        try:
            return bool(condition())
        except TrunklineError:
            return False

    deadline, asked = time.monotonic() + seconds, time.monotonic()
    while not await asyncio.to_thread(holds):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come to be in {seconds:g} s\n{workers.logs[-4000:]}")
        workers.revive()
        await asyncio.sleep(max(0.1, 2 * (time.monotonic() - asked)))  # what takes long is asked less often
        asked = time.monotonic()
