"""The demo's own project under kills: its flights, its five systems, and a worker that is killed again and again.

Nothing of the project is changed. The stand-ins and the partner live in this process, so that they outlive every worker.
"""

from __future__ import annotations

import asyncio
import csv
import random
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tests.chaos.checker import Promise, check
from tests.chaos.faults.brokers import Broker
from tests.chaos.faults.processes import KILL, Fleet
from tests.chaos.gather import Ledgers
from tests.chaos.history import Acknowledged, Effect, History, Sent
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.cli.demo import play, stage
from trunkline.cli.demo.airline import AT_ONCE, Airline, correlation_id, local_client, message_id, new_secret
from trunkline.cli.demo.flights import EXAMPLE, Flights, read_flights
from trunkline.cli.demo.partner import Partner
from trunkline.core.errors import TrunklineError
from trunkline.core.mock import Mock

DELAYED, CRITICAL = "flights.delayed", "flights.critical"
SLACK = "critical-to-slack"
PATIENCE = 240.0
PAUSE = (1.0, 6.0)
"""Seconds between two kills: some come while a worker starts, some while it works."""


@dataclass(slots=True)
class _Systems:
    """What the flights come from and go to."""

    mocks: dict[str, Mock]
    partner: Partner
    secret: str
    partner_secret: str
    sftp_root: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for mock in self.mocks.values() for name, value in mock.environment.items()}
        return own | {
            "AIRLINE_WEBHOOK_SECRET": self.secret,
            "PARTNER_URL": self.partner.url,
            "PARTNER_SIGNING_SECRET": self.partner_secret,
            "TRUNKLINE_MASK_KEY": "a key of the fault campaign",
            "SLACK_INTERVAL": "20ms",
        }


def kill_demo(*, kills: int, seed: int | None, folder: Path) -> int:
    """Runs the demo's project while its worker is killed `kills` times. 0 when everything arrived as promised, else 1."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"seed {seed}: the demo's worker is killed {kills} times")
    begun = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    findings = asyncio.run(_run(kills, random.Random(seed), folder))
    for finding in findings:
        print(f"    FOUND {finding}")
    print(f"{'FAILED' if findings else 'passed'} in {time.monotonic() - begun:.0f} s")
    return 1 if findings else 0


async def _run(kills: int, chance: random.Random, folder: Path) -> list[str]:
    flights = read_flights()
    async with AsyncExitStack() as stack:
        systems = await _systems(stack, folder)
        broker = Broker(folder / "broker")
        stack.push_async_callback(asyncio.to_thread, broker.close)
        await asyncio.to_thread(broker.start)
        kafka = KafkaSettings(broker.bootstrap)
        port = _free_port()
        workers = Fleet(
            broker.bootstrap,
            "",
            EXAMPLE,
            folder,
            arguments=("--ingress", f"127.0.0.1:{port}"),
            environment={**systems.environment, "FLIGHTS_FILE": str(flights.file)},
        )
        await play.tell_crm(cast(stage.Stage, systems), flights.carriers)  # it looks at the stand-ins only
        airline = Airline(f"http://127.0.0.1:{port}/hooks/departures", systems.secret)
        with workers:
            posting = asyncio.create_task(_post(airline, flights))
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(*PAUSE))
                await asyncio.to_thread(workers.kill, 0)
                workers.start_one(0)
            settled = await _settled(kafka, flights, workers)
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
        findings = [] if settled else [f"not everything was settled in {PATIENCE:g} s"]
        findings += [f"the worker died of {crash}" for crash in workers.crashed]
        if workers.fired[KILL] < kills:
            findings.append(f"{workers.fired[KILL]} of {kills} kills fired")
        print(
            f"    {workers.fired[KILL]} kills, answers to the airline {dict(airline.answers)}, asked again {airline.later}"
        )
        return [*findings, *_judged(systems, flights)]


async def _systems(stack: AsyncExitStack, folder: Path) -> _Systems:
    secret, partner_secret = new_secret(), new_secret()
    partner = Partner(partner_secret, lambda text: print(f"    {text}"))
    await partner.start()
    stack.push_async_callback(partner.stop)
    mocks = {}
    for name, settings in stage._STAND_INS.items():
        mocks[name] = stage._stand_in(name, settings, folder)
        await mocks[name].start()
        stack.push_async_callback(mocks[name].stop)
    return _Systems(mocks, partner, secret, partner_secret, folder / "sftp")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _post(airline: Airline, flights: Flights) -> None:
    """Posts every departure until it is accepted, however long there is no worker."""
    client = local_client()
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, body: bytes) -> None:
        async with turns:
            status = 503
            while status >= 300:
                status, _ = await airline.post(client, message_id(number), body, correlation=correlation_id(number))

    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for number, body in enumerate(flights.posts):
                group.create_task(one(number, body))
    finally:
        await client.close()


async def _settled(kafka: KafkaSettings, flights: Flights, workers: Fleet) -> bool:
    """Waits until the sinks' ledgers account for every late flight."""
    ledgers = Ledgers(kafka, Names())
    wanted = {sink: (DELAYED, len(flights.delayed)) for sink in play.SINKS} | {SLACK: (CRITICAL, len(flights.critical))}
    deadline = time.monotonic() + PATIENCE

    def left() -> list[str]:
        try:
            return [sink for sink, (topic, count) in wanted.items() if ledgers.read(sink, topic) < count]
        except TrunklineError:
            return list(wanted)

    try:
        while await asyncio.to_thread(left):
            if time.monotonic() > deadline:
                return False
            workers.revive()
            await asyncio.sleep(0.5)
        return True
    finally:
        await asyncio.to_thread(ledgers.close)


def _judged(systems: _Systems, flights: Flights) -> list[str]:
    """What is wrong with what lies in the five systems."""
    history = History(Sent(key, "airline") for key in flights.delayed)
    history.extend(Acknowledged(key, "airline") for key in flights.delayed)
    history.extend(_effects(systems))
    promises = [Promise(sink, ("airline",), ordered=False) for sink in play.SINKS if sink != SLACK]
    found = [str(finding) for finding in check(history, promises)]
    messages = systems.mocks["slack"].contents()
    told = {message["metadata"]["event_payload"]["correlation_id"] for message in messages}
    print(f"    Slack is at least once: {len(messages)} messages for {len(flights.critical)} flights")
    if len(told) != len(flights.critical):
        found.append(f"{SLACK}: {len(told)} of {len(flights.critical)} critical flights were told")
    if systems.partner.forged:
        found.append(f"{systems.partner.forged} requests to the partner were signed wrongly")
    return found


def _effects(systems: _Systems) -> Iterator[Effect]:
    """The state of each system: a record of an upsert, a row of a file, a resource that was put."""
    for record in systems.mocks["salesforce"].contents().get("Flight__c", []):
        yield Effect(record["Flight_Key__c"], "delayed-to-salesforce")
    for row in systems.mocks["google_sheets"].contents().get("Delayed", [])[1:]:
        yield Effect(str(row[0]), "delayed-to-sheets")
    for key in systems.partner.delays:
        yield Effect(key, "delayed-to-partner")
    for file in sorted(systems.sftp_root.rglob("*.csv")):
        with file.open(encoding="utf-8", newline="") as text:
            for row in csv.DictReader(text):
                yield Effect(row["flight_key"], "delayed-to-sftp")
