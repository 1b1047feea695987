"""Row 28: retention deletes unread records of some partitions under a paused sink."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from confluent_kafka import TopicPartition

from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.history import Acknowledged, Attempt, Effect, History, Sent
from tests.integration.bus_harness import Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from trunkline.bus.accounting.commits import committed
from trunkline.bus.accounting.reconcile import reconcile
from trunkline.bus.commitfaults import SHOWN
from trunkline.bus.states import Desired, State
from trunkline.bus.worker.board import Report
from trunkline.core.envelope import Headers

SINK = "out"
DELETED = "partitions cut"


@dataclass
class Paused:
    """A sink that is paused, cut off from some of what it has not read, and resumed."""

    run: Run
    made: Bus
    endpoint: Endpoint
    topic: str
    ids: dict[int, list[int]] = field(default_factory=dict)
    """The orders of each partition: the one at an offset is at that place."""
    gone: set[int] = field(default_factory=set)
    """Orders that were deleted before they were read."""
    under_way: set[int] = field(default_factory=set)
    """Orders that waited beside a gap when the sink was resumed: those that it took before it found the gap may go out again."""

    async def write(self, count: int) -> None:
        """Writes orders, each into a partition by chance."""
        encoder = await self.made.encoder(self.topic)
        parts: dict[int, list[int]] = {}
        for number in range(sum(map(len, self.ids.values())), sum(map(len, self.ids.values())) + count):
            parts.setdefault(self.run.chance.randrange(self.run["partitions"]), []).append(number)
        for partition, numbers in parts.items():
            records: list[tuple[bytes | None, bytes | None, Headers]] = [
                (encoder.encode(order(number)), str(number % 50).encode(), []) for number in numbers
            ]
            await self.made.send(self.topic, records, partition)
            self.ids.setdefault(partition, []).extend(numbers)

    async def until_delivered(self) -> None:
        """Waits until everything that is left was delivered and committed."""
        wanted = {number for numbers in self.ids.values() for number in numbers} - self.gone
        await self.made.until(lambda: wanted <= set(self.endpoint.ids(f"/{SINK}")), "what is left", 200)
        ends = {(self.topic, partition): len(numbers) for partition, numbers in self.ids.items()}
        await self.made.until(lambda: self._committed(ends), "the commits", 60)

    async def _committed(self, ends: dict[tuple[str, int], int]) -> bool:
        found = await asyncio.to_thread(committed, self.made.settings, self.made.names, SINK, list(ends))
        return {place: offset for place, (offset, _) in found.items()} == ends

    async def cut(self) -> dict[int, tuple[int, int]]:
        """Deletes records: of some partitions what was not read yet, of one only what was. Gives commit and first offset of the former."""
        places = [(self.topic, partition) for partition in self.ids]
        commits = await asyncio.to_thread(committed, self.made.settings, self.made.names, SINK, places)
        unread = [one for one in self.ids if len(self.ids[one]) - commits[self.topic, one][0] > 1]
        chosen = self.run.chance.sample(unread, self.run.chance.randrange(1, max(2, len(unread))))
        cuts = {}
        for partition, numbers in self.ids.items():
            self.under_way |= set(numbers[commits[self.topic, partition][0] :])
        for partition in chosen:
            before = commits[self.topic, partition][0]
            first = self.run.chance.randrange(before + 1, len(self.ids[partition]))
            cuts[partition] = (before, first)
            self.gone |= set(self.ids[partition][before:first])
        self.under_way -= self.gone
        read = next(one for one in self.ids if one not in chosen)
        firsts = {**{partition: first for partition, (_, first) in cuts.items()}, read: commits[self.topic, read][0]}
        await asyncio.to_thread(self._delete_before, firsts)
        self.run.fires({DELETED: len(cuts)})
        return cuts

    def _delete_before(self, firsts: dict[int, int]) -> None:
        admin = self.made.settings.admin()
        asked = [TopicPartition(self.topic, partition, first) for partition, first in firsts.items()]
        for answer in admin.delete_records(asked).values():
            answer.result(20)

    def judge(self, report: Report, cuts: dict[int, tuple[int, int]]) -> None:
        """The reason names the partitions that were cut and no other, with what is lost."""
        run, reason = self.run, report.reason or ""
        run.claim(report.code == "offsets.out_of_range", f"it failed with {report.code}: {reason}")
        each, others = sorted(cuts)[:SHOWN], sorted(cuts)[SHOWN:]
        for partition in self.ids:
            named = f"{self.topic}[{partition}] is" in reason
            run.claim(named == (partition in each), f"partition {partition}, cut at {cuts.get(partition)}: {reason}")
        if others:
            less = sum(first - before for before, first in map(cuts.__getitem__, others))
            told = f"{less} were deleted as well, {sum(first - before for before, first in cuts.values())} in all"
            run.claim(
                f"in {len(others)} more partitions" in reason and told in reason, f"not told: {told}; but: {reason}"
            )
        for partition, (before, first) in ((one, cuts[one]) for one in each):
            told = f"{self.topic}[{partition}] is committed up to {before} and its first record is at {first} now: {first - before} were"
            run.claim(told in reason, f"not told: {told}; but: {reason}")

    async def repair(self, cuts: dict[int, tuple[int, int]]) -> None:
        """What the hint says."""
        planned = await self.made.set_offsets(SINK, "after-gap")
        found = {one.partition: (one.committed, one.offset, one.lost, one.again, one.skipped) for one in planned.moves}
        wanted = {partition: (before, first, first - before, 0, 0) for partition, (before, first) in cuts.items()}
        self.run.claim(found == wanted, f"the plan is {found}, and should be {wanted}")

    def history(self) -> History:
        """Everything that was written and delivered; what was deleted unread was never taken over by the sink."""
        history = History()
        for numbers in self.ids.values():
            for number in numbers:
                history.add(Sent(str(number), self.topic))
                if number not in self.gone:
                    history.add(Acknowledged(str(number), self.topic))
        for asked in self.endpoint.to(f"/{SINK}"):
            history.add(Attempt(str(asked.json["id"]), SINK))
        for number in dict.fromkeys(self.endpoint.ids(f"/{SINK}")):
            history.add(Effect(str(number), SINK))  # of what went out again the row judges for itself
        return history


@row(
    28,
    "retention under a paused sink",
    load="{events:,} events in {partitions} partitions, a sink that is paused {times} times",
    fault="unread records of some partitions deleted while it is paused",
    full={"events": 20_000, "partitions": 8, "times": 10},
    short={"events": 120, "partitions": 3, "times": 1},
    minutes=12,
)
async def retention(run: Run) -> None:
    """The gap is named by partition and count; nothing is passed over, what was settled is not read again; ledger and reconcile agree."""
    kafka = await run.kafka()
    endpoint = Endpoint()
    await endpoint.start()
    try:
        async with bus(kafka.bootstrap, run.folder / "worker") as made:
            paused = Paused(run, made, endpoint, made.name("orders"))
            await made.start(
                topic_manifest(paused.topic, run["partitions"])
                + http_connection("peer", endpoint.url)
                + http_sink(SINK, paused.topic, connection="peer")
            )
            await made.until_running(SINK)
            part = run["events"] // (2 * run["times"])
            for _ in range(run["times"]):
                await paused.write(part)
                await paused.until_delivered()
                await made.wish(SINK, Desired.PAUSED)
                await made.until(lambda: made.report(SINK).state is State.PAUSED, "a pause")
                await paused.write(part)
                cuts = await paused.cut()
                await made.wish(SINK, Desired.RUNNING)
                paused.judge(await made.until_failed(SINK), cuts)
                await paused.repair(cuts)
                await paused.until_delivered()
            await made.stop()
            checks = await asyncio.to_thread(reconcile, made.settings, made.names, SINK)
        run.claim(all(one.closes for one in checks), f"the ledger does not close: {checks}")
        run.judge(paused.history(), [Promise(SINK, (paused.topic,), ordered=False)])
        delivered = Counter(endpoint.ids(f"/{SINK}"))
        repeated = {number for number, times in delivered.items() if times > 1}
        run.claim(repeated <= paused.under_way, f"delivered again: {sorted(repeated - paused.under_way)}")
        run.claim(
            all(times <= 2 for times in delivered.values()), f"delivered more than twice: {delivered.most_common(3)}"
        )
        run.claim(not paused.gone & delivered.keys(), "what was deleted was delivered")
        run.note("deleted unread", len(paused.gone))
        run.must_fire(DELETED, run["times"])
    finally:
        await endpoint.stop()
