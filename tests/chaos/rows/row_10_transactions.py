"""Row 10: a stream's worker dies at the points of its transaction."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.faults.victim import COMMITTED, COMMITTING, OFFSETS, PRODUCED, WRITTEN
from tests.chaos.faults.victims import Victim
from tests.chaos.history import Acknowledged, Filtered, History, Sent
from tests.chaos.scene import PATIENCE
from tests.integration.bus_harness import ORDER, Bus, bus, order, topic_manifest, unframed
from trunkline.bus.kafka import KafkaSettings, closing, end_offsets, read_range, watermarks
from trunkline.core.errors import RetriableError

POINTS = (PRODUCED, OFFSETS, WRITTEN, COMMITTING, COMMITTED)
PARTITIONS, CUSTOMERS = 4, 50


@row(
    10,
    "transactions cut",
    load="{inputs:,} inputs, read by {points} exactly-once streams that filter and change them",
    fault="kill -9 at points of the transaction, {points} points × {kills}",
    full={"inputs": 20_000, "points": 5, "kills": 10, "read": 100},
    short={"inputs": 600, "points": 1, "kills": 1, "read": 60},
    minutes=12,
)
async def transactions_cut(run: Run) -> None:
    """What readers of committed records see is the work on the input exactly: each once, in order, and nothing else."""
    kafka = await run.kafka()
    async with bus(kafka.bootstrap, run.folder / "nobody") as made:
        topic = made.name("in")
        await made.create(topic, PARTITIONS)
        orders = [order(number, f"c{run.chance.randrange(CUSTOMERS)}", number) for number in range(run["inputs"])]
        await made.send_orders(topic, orders)
        trials = [_Trial(run, made, point, orders) for point in POINTS[: run["points"]]]
        await run.beside_each_other(trial.go() for trial in trials)
        for point in POINTS[: run["points"]]:
            run.must_fire(f"killed at {point}", run["kills"])
        aborted = sum(trial.aborted for trial in trials)
        run.claim(aborted > 0, "no record was aborted")
        run.note("aborted records", aborted)


class _Trial:
    """One stream, whose worker dies at one point."""

    def __init__(self, run: Run, made: Bus, point: str, orders: list[dict[str, Any]]) -> None:
        self._run = run
        self._made = made
        self._point = point
        self._orders = orders
        self._stream, self._in, self._out = f"work-{point}", made.name("in"), made.name(f"out-{point}")
        self.aborted = 0
        # As many transactions as there are at least, shared among the lives; drawn here, so that the order is the seed's.
        share = run["inputs"] // run["read"] // (run["kills"] + 1)
        self._deaths = [(run.chance.randint(1, max(1, share)), run.chance.random()) for _ in range(run["kills"])]
        project = run.folder / f"{point}.yaml"
        project.write_text(self._manifests(), encoding="utf-8")
        self._victim = Victim(
            made.settings.bootstrap, made.names, run.folder / point, project, made.registry_url, run["read"]
        )
        run.stack.push_async_callback(self._victim.end)

    def _manifests(self) -> str:
        return (
            topic_manifest(self._in, PARTITIONS)
            + topic_manifest(self._out, PARTITIONS)
            + f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {self._stream}}}
spec:
  from: "{self._in}"
  start: earliest
  steps:
    - filter: event.id % 3 != 0
    - map: {{keep: all, set: {{amount: event.amount * 2}}}}
  to: "{self._out}"
"""
        )

    async def go(self) -> None:
        """Kills, lets it come to its end, and judges what it left."""
        for passing, chance in self._deaths:
            await self._victim.dies(self._point, passing, chance)
        self._run.fires(self._victim.fired)
        await self._victim.lives()
        ledgers = gather.Ledgers(self._made.settings, self._made.names)
        try:
            await self._made.until(
                lambda: asyncio.to_thread(self._is_read, ledgers), f"the end of {self._stream}", PATIENCE
            )
            filtered = await asyncio.to_thread(self._filtered, ledgers)
        finally:
            await asyncio.to_thread(ledgers.close)
        await self._victim.end()
        await asyncio.to_thread(self._judge, filtered)

    def _is_read(self, ledgers: gather.Ledgers) -> bool:
        try:
            return ledgers.read(self._stream, self._in) >= len(self._orders)
        except RetriableError:
            return False  # offsets of an open transaction are told when it has ended

    def _filtered(self, ledgers: gather.Ledgers) -> int:
        return sum(ledger.filtered for ledger in ledgers.of(self._stream, self._in).values())

    def _judge(self, filtered: int) -> None:
        run, settings = self._run, self._made.settings
        sequences: dict[str, int] = defaultdict(int)
        history = History()
        for one in self._orders:
            customer = one["customer"]
            history.add(Sent(str(one["id"]), "input", customer, sequences[customer]))
            history.add(Acknowledged(str(one["id"]), "input", by="the broker"))
            sequences[customer] += 1
        commits = list(gather.commits(settings, self._made.names, [self._stream]))
        left_out = [str(one["id"]) for one in self._orders if one["id"] % 3 == 0]
        history.extend(gather.placed(settings, self._in, _id))
        history.extend(gather.published(settings, self._out, self._stream, _id))
        history.extend(gather.filtered(self._stream, left_out, commits, filtered))
        history.extend(commits)
        run.claim(len(history.of(Filtered)) == len(left_out), f"{filtered} of {len(left_out)} were filtered")
        run.judge(history, [Promise(self._stream, ("input",))])
        found = Counter(_shown(unframed(message.value() or b"")) for message in gather.committed(settings, self._out))
        wanted = Counter(_shown({**one, "amount": one["amount"] * 2}) for one in self._orders if one["id"] % 3)
        run.claim(found == wanted, f"{self._stream}: the output is not the work on the input: {found - wanted}")
        self.aborted = _written(settings, self._out) - found.total()


def _id(message: Any) -> str:
    return str(unframed(message.value(), ORDER)["id"])


def _shown(value: dict[str, Any]) -> str:
    return f"{value['id']} {value['customer']} {value['amount']}"


def _written(settings: KafkaSettings, topic: str) -> int:
    """How many records lie in a topic, those of aborted transactions included."""
    count = 0
    for partition, end in end_offsets(settings, topic).items():
        with closing(settings.reader(committed_only=False, eof=True)) as reader:
            first = watermarks(reader, topic, partition)[0]
            count += sum(1 for _ in read_range(reader, topic, partition, first, end))
    return count
