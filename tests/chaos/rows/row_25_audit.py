"""Row 25: the audit trail is tampered with in every way, and processes that append to it are killed."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

from tests.chaos.campaign import Run, row
from tests.chaos.faults.audit_trails import BY_HEAD, MANIPULATIONS, AuditedBus, judged
from tests.chaos.faults.audit_victim import CONFIRMED
from tests.chaos.faults.warm import WarmProcess
from trunkline.bus.accounting.audit import entries, records
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.sealing import sealed_by_now
from trunkline.bus.topics import ensure_topics, internal_topics

MANIPULATED, KILLED = "manipulations", "kill -9"
PATIENCE = 60.0


@row(
    25,
    "the audit trail",
    load="{trails} trails of writers that commit, abort and are killed at once, and {writers} processes that append to one",
    fault="{edits} edits, deletions, reorderings, cut tails and rewrites; kill -9 × {kills} while appending",
    full={"trails": 100, "edits": 200, "writers": 2, "kills": 30},
    short={"trails": 10, "edits": 200, "writers": 2, "kills": 3},
    minutes=15,
)
async def audit_trail(run: Run) -> None:
    """Every manipulation is found, nothing is found where there was none, and what was confirmed is in the trail."""
    _clean(run)
    _manipulated(run)
    await _killed(run)
    run.must_fire(MANIPULATED, run["edits"])
    run.must_fire(KILLED, run["kills"])


def _trail(seed: int) -> AuditedBus:
    made = AuditedBus(random.Random(seed))
    made.live(60, old=seed % 3)
    return made


def _clean(run: Run) -> None:
    aborted = killed = 0
    for _ in range(run["trails"]):
        seed = run.chance.randrange(10**9)
        made = _trail(seed)
        found = judged(made.records())
        run.claim(
            not found.found and not found.unsealed, f"the trail {seed} is sound, and not found so: {found.findings}"
        )
        aborted, killed = aborted + made.aborted, killed + made.killed
    run.note("aborted entries in sound trails", aborted)
    run.note("killed writers in sound trails", killed)


def _manipulated(run: Run) -> None:
    by_itself: Counter[bool] = Counter()
    kinds = sorted(MANIPULATIONS)
    for number in range(run["edits"]):
        kind, seed = kinds[number % len(kinds)], run.chance.randrange(10**9)
        before = _trail(seed).records()
        head = judged(before).head
        after = MANIPULATIONS[kind](run.chance, before)
        while [one[2:] for one in after] == [one[2:] for one in before]:
            after = MANIPULATIONS[kind](run.chance, before)
        run.fires({MANIPULATED: 1})
        run.claim(judged(after, head).found, f"{kind} of the trail {seed} was not found")
        if kind not in BY_HEAD:
            by_itself[judged(after).found > 0] += 1
    run.note("found without a noted head", f"{by_itself[True]} of {by_itself.total()} that the topic itself can show")


async def _killed(run: Run) -> None:
    kafka = await run.kafka()
    names = Names(f"t{run.chance.randrange(16**8):08x}")
    wanted = {names.audit, names.control}
    plans = [plan for plan in internal_topics(names) if plan.name in wanted]
    await asyncio.to_thread(ensure_topics, kafka, plans)
    heads: list[str] = []
    lives = [_Life(run, kafka, names, number) for number in range(run["writers"])]
    try:
        for _ in range(run["kills"]):
            victim = run.chance.choice(lives)
            await victim.appends(run.chance.randint(1, 4), run.chance.random())
            victim.end()
            run.fires({KILLED: 1})
            heads.append((await asyncio.to_thread(lambda: judged(list(records(kafka, names))))).head)
            victim.begin()
    finally:
        for one in lives:
            one.end()
    sealed = await asyncio.to_thread(sealed_by_now, kafka, names, who="the row", patience=PATIENCE)
    run.claim(sealed, "the trail was not sealed in the end")
    await asyncio.to_thread(_judge, run, kafka, names, heads, {one for life in lives for one in life.confirmed()})


def _judge(run: Run, kafka: KafkaSettings, names: Names, heads: list[str], confirmed: set[str]) -> None:
    found = judged(list(records(kafka, names)))
    run.claim(not found.found, f"the trail was found tampered with: {found.findings[:3]}")
    run.claim(found.unsealed == 0, f"{found.unsealed} entries are not sealed")
    for head in filter(None, heads):
        run.claim(found.has_head(head), f"the head {head}, which was read between two kills, is not part of the trail")
    there = {one.details["identity"] for one in entries(kafka, names)}
    run.claim(confirmed <= there, f"{len(confirmed - there)} confirmed changes have no entry")
    run.claim(len(confirmed) >= run["kills"], f"only {len(confirmed)} changes were confirmed")
    run.note("entries", found.entries)
    run.note("writers", found.writers)
    run.note("seals", found.seals)


class _Life:
    """A process that appends, again and again."""

    def __init__(self, run: Run, kafka: KafkaSettings, names: Names, number: int) -> None:
        self._arguments = (kafka.bootstrap, names.namespace)
        self._chance, self._number, self._born = run.chance, number, 0
        self._folder: Path = run.folder
        self.begin()

    def begin(self) -> None:
        """Another one begins."""
        self._born += 1
        self._log = self._folder / f"appender-{self._number}-{self._born}.out"
        self._log.touch()
        self._process = WarmProcess(
            "tests.chaos.faults.audit_victim",
            [*self._arguments, str(self._chance.randrange(10**9))],
            log=self._log,
            errors=self._log.with_suffix(".err"),
            environment=dict(os.environ),
        )

    async def appends(self, changes: int, then: float) -> None:
        """Waits until this life had so many changes confirmed, and for a part of the time that one takes."""
        async with asyncio.timeout(PATIENCE):
            while len(_lines(self._log)) < changes:
                if self._process.poll() is not None:
                    raise RuntimeError(f"the appender ended: {self._log.with_suffix('.err').read_text()[-2000:]}")
                await asyncio.sleep(0.01)
        await asyncio.sleep(then * 0.1)

    def end(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def confirmed(self) -> list[str]:
        """What Kafka has confirmed to all lives."""
        return [line for file in self._folder.glob(f"appender-{self._number}-*.out") for line in _lines(file)]


def _lines(file: Path) -> list[str]:
    """What was confirmed: of a process that was killed the last line may be a piece."""
    whole = file.read_text().split("\n")[:-1]
    return [line.removeprefix(CONFIRMED) for line in whole if line.startswith(CONFIRMED)]
