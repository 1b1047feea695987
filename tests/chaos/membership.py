"""Groups of workers in one process that read one topic, as the rows about rebalances need them.

    records in a topic ─▶ an http sink, run by several workers ─▶ HttpSinkServer at /<protocol>

Each group has a namespace, a protocol and a watch of its own, so that several can be tried beside each other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.chaos import gather
from tests.chaos.checker import Promise
from tests.chaos.faults.http_sink import HttpSinkServer
from tests.chaos.faults.members import Watch, WatchedConsumer
from tests.chaos.history import Acknowledged, Attempt, Effect, History, Sent
from tests.chaos.scene import PATIENCE
from tests.integration.bus_harness import Bus, bus, http_connection, http_sink, order, topic_manifest, unframed
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.worker.worker import Worker
from trunkline.core.errors import RetriableError

RANGE, COOPERATIVE, CONSUMER = "range", "cooperative-sticky", "kip-848"
PROTOCOLS = (CONSUMER, RANGE, COOPERATIVE)
PARTITIONS, CUSTOMERS = 6, 40


def settings_of(kafka: KafkaSettings, protocol: str) -> KafkaSettings:
    """The settings of a client that joins its groups by a protocol."""
    if protocol == RANGE:
        return replace(kafka, consumer_protocol=False, classic_assignor="range")
    if protocol == COOPERATIVE:
        return replace(kafka, consumer_protocol=False, classic_assignor="cooperative-sticky")
    return kafka


@dataclass
class Group:
    """The workers of one group, and what was sent to it."""

    made: Bus
    server: HttpSinkServer
    watch: Watch
    chance: random.Random
    protocol: str
    folder: Path
    workers: dict[int, Worker] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    _sequences: dict[str, int] = field(default_factory=dict)
    _homes: int = 0

    @property
    def sink(self) -> str:
        """The pipeline; its server sees it as the path `/<sink>`."""
        return f"sink-{self.protocol}"

    @property
    def topic(self) -> str:
        """What the sink reads."""
        return self.made.name("in")

    @property
    def group(self) -> str:
        """The consumer group."""
        return self.made.names.group(self.sink)

    async def prepare(self) -> None:
        """Makes the topic."""
        await self.made.create(self.topic, PARTITIONS)
        # Parking needs the same partition of all inputs at one worker, which cooperative-sticky does not see to.
        delivery = ", in_flight: 8" + (", exhausted: dead-letter" if self.protocol == COOPERATIVE else "")
        self.made.manifests = [
            topic_manifest(self.topic, PARTITIONS),
            http_connection("peer", self.server.url),
            http_sink(self.sink, self.topic, connection="peer", delivery=delivery),
        ]

    async def send(self, count: int) -> None:
        """Writes so many more records."""
        orders = []
        for _ in range(count):
            customer = f"c{self.chance.randrange(CUSTOMERS)}"
            sequence = self._sequences[customer] = self._sequences.get(customer, -1) + 1
            number = len(self.sent)
            orders.append(order(number, customer))
            self.sent.append(Sent(f"{self.protocol}-{number}", "load", customer, sequence))
        await self.made.send_orders(self.topic, orders)

    async def join(self) -> int:
        """Starts a worker, and says its number."""
        number, self._homes = self._homes, self._homes + 1
        self.workers[number] = await self.made.another(self.folder / f"{self.protocol}-{number}")
        return number

    async def leave(self, number: int) -> None:
        """Ends a worker in order."""
        worker = self.workers.pop(number)
        self.made.more.remove(worker)
        await worker.close()

    def member(self, place: int) -> WatchedConsumer:
        """One of the group's members that live, the oldest first."""
        return self.watch.of(self.group)[place]

    def owners(self) -> set[str]:
        """The members that own partitions at this moment; nobody while a partition of the topic or its retry topic has no owner.

        Both topics count: cooperative-sticky balances partitions alone, and may give one member all of one topic.
        """
        found: dict[tuple[str, int], str] = {}
        for one in list(self.watch.owned):
            if one.route == self.group:
                found[one.topic, one.partition] = one.member
        members = set(found.values())
        return members if len(found) == 2 * PARTITIONS and "" not in members else set()

    async def until_shared(self, members: int) -> None:
        """Waits until so many members own partitions, and every partition has an owner."""
        await self.made.until(lambda: len(self.owners()) == members, f"{self.protocol}: {members} owners", PATIENCE)

    async def until_settled(self) -> None:
        """Waits until the group's commits account for everything that was sent."""
        ledgers = gather.Ledgers(replace(self.made.settings, consumer_protocol=True), self.made.names)

        def settled() -> bool:
            try:
                return ledgers.read(self.sink, self.topic) >= len(self.sent)
            except RetriableError:
                return False

        try:
            await self.made.until(
                lambda: asyncio.to_thread(settled), f"{self.protocol}: {len(self.sent)} records settled", 120
            )
        finally:
            await asyncio.to_thread(ledgers.close)

    def history(self) -> History:
        """What was sent, delivered, committed by whom, and owned."""
        history = History(self.sent)
        history.extend(Acknowledged(sent.id, "load", by="the broker") for sent in self.sent)
        history.extend(gather.placed(self.made.settings, self.topic, self._name))
        commits = list(gather.commits(self.made.settings, self.made.names, [self.sink]))
        history.extend(self.watch.named(commits, self.group))
        history.extend(replace(one, route=self.sink) for one in self.watch.owned if one.route == self.group)
        for fact in self.server.facts({f"/{self.sink}": self.sink}):
            assert isinstance(fact, Attempt | Effect)
            history.add(replace(fact, id=f"{self.protocol}-{fact.id}"))
        return history

    @property
    def promise(self) -> Promise:
        """Each event once, in order; and no commit that is early or another's."""
        return Promise(self.sink, ("load",))

    def _name(self, message: Any) -> str:
        return f"{self.protocol}-{unframed(message.value())['id']}"


@asynccontextmanager
async def groups(
    kafka: KafkaSettings,
    server: HttpSinkServer,
    folder: Path,
    chance: random.Random,
    protocols: tuple[str, ...],
    watch: Watch,
) -> AsyncIterator[list[Group]]:
    """A group for each protocol, without members yet."""
    made: list[Group] = []
    async with AsyncExitStack() as stack:
        stack.enter_context(watch.replaced())
        for protocol in protocols:
            one = await stack.enter_async_context(bus(kafka.bootstrap, folder / "nobody"))
            one.settings = settings_of(kafka, protocol)
            group = Group(one, server, watch, random.Random(chance.random()), protocol, folder)
            await group.prepare()
            made.append(group)
        yield made
