"""The rows of the campaign: how they register themselves, what a run of one is given, and what it leaves.

A row is a coroutine in `tests/chaos/rows/`, marked by `@row`. It has full figures for `make chaos` and short ones for `make test`;
everything random in it follows from the run's seed.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.chaos.checker import Finding, Promise, check
from tests.chaos.faults.brokers import Broker
from tests.chaos.history import History
from tests.variables import environment_kept
from trunkline.bus.kafka import KafkaSettings

SHORT_SECONDS = 480.0
"""The end of a short run that hangs. It takes seconds, on a machine with nothing else to do."""
Work = Callable[["Run"], Awaitable[None]]
Figures = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the catalogue. `load` and `fault` are shown in the report, with the figures filled in."""

    number: int
    title: str
    load: str
    fault: str
    full: Figures
    short: Figures
    minutes: float
    work: Work


ROWS: dict[int, Row] = {}


def row(
    number: int, title: str, *, load: str, fault: str, full: Figures, short: Figures, minutes: float
) -> Callable[[Work], Work]:
    """Registers a coroutine as a row of the campaign. `minutes` limits its full run."""

    def register(work: Work) -> Work:
        assert number not in ROWS, f"there are two rows {number}"
        assert full.keys() == short.keys(), f"the full and the short figures of row {number} have different names"
        ROWS[number] = Row(number, title, load, fault, full, short, minutes, work)
        return work

    return register


def load_rows() -> Mapping[int, Row]:
    """Every row, by number."""
    from tests.chaos import rows

    for module in pkgutil.iter_modules(rows.__path__):
        importlib.import_module(f"{rows.__name__}.{module.name}")
    return dict(sorted(ROWS.items()))


@dataclass
class Run:
    """One run of a row: what it is given, and what it finds.

    A row reads its figures by name (`run["events"]`), takes chance from `chance` only, says what it measured by `note`, what its
    tools did by `fires`, what they had to do at least by `must_fire`, and what it found by `judge` and `claim`.
    """

    row: Row
    seed: int
    folder: Path
    full: bool
    bootstrap: str | None = None
    """A broker that may be used and must not be harmed; one is started where there is none."""
    lent: Broker | None = None
    """A broker behind a proxy that may be harmed and is not the row's to end; one is started where there is none."""
    notes: dict[str, Any] = field(default_factory=dict)
    fired: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    needed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.seed}:{self.row.number}")
        self.stack = AsyncExitStack()
        self.folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, figure: str) -> int:
        return (self.row.full if self.full else self.row.short)[figure]

    async def kafka(self) -> KafkaSettings:
        """A broker that lives through the row: the shared one, or one of its own."""
        if self.bootstrap is None:
            self.bootstrap = (await self.own_broker()).bootstrap
        return KafkaSettings(self.bootstrap)

    async def own_broker(
        self, *, proxied: bool = False, authorizer: bool = False, overrides: Mapping[str, str] | None = None
    ) -> Broker:
        """A broker to be harmed; it is started, and ends with the row. What it does counts as fired."""
        lent = None if authorizer or overrides else self.lent
        broker = lent or Broker(self.folder / "broker", proxied=proxied, authorizer=authorizer, overrides=overrides)
        before = broker.all_fired

        def close() -> None:
            self.fires(broker.all_fired - before)
            if broker is not lent:
                broker.close()

        self.stack.push_async_callback(asyncio.to_thread, close)
        await asyncio.to_thread(broker.start)
        return broker

    async def beside_each_other(self, works: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Runs several works at the same time. The first that fails ends the others, and is what is raised."""
        try:
            async with asyncio.TaskGroup() as together:
                for work in works:
                    together.create_task(work)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    def note(self, name: str, value: object) -> None:
        """Something measured, for the report."""
        self.notes[name] = value

    def fires(self, fired: Mapping[str, int]) -> None:
        """What a tool of faults did."""
        self.fired.update(fired)

    def must_fire(self, kind: str, times: int) -> None:
        """The row is no proof unless the fault fired so often."""
        self.needed[kind] = times

    def claim(self, holds: object, what: str) -> None:
        """Something that must be so, besides what a history tells."""
        if not holds:
            self.findings.append(what)

    def judge(self, history: History, promises: Iterable[Promise]) -> list[Finding]:
        """Judges a history; it is kept in the run's folder where something is wrong with it."""
        found = check(history, promises)
        self.findings += map(str, found)
        if found:
            history.save(self.folder / "history.jsonl")
        return found


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to, as it is stored and reported."""

    number: int
    title: str
    seed: int
    load: str
    fault: str
    notes: Mapping[str, Any]
    fired: Mapping[str, int]
    findings: list[str]
    seconds: float
    ended: str

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


async def execute(
    one: Row, *, seed: int, folder: Path, full: bool, bootstrap: str | None = None, lent: Broker | None = None
) -> Result:
    """Runs a row to its end. What it raises is a finding, as is a fault that did not fire.

    The variables that it sets, changes or removes are afterwards as they were, for the rows and tests that follow in the process.
    """
    run = Run(one, seed, folder, full, bootstrap, lent)
    begun = time.monotonic()
    try:
        with environment_kept():
            async with asyncio.timeout(one.minutes * 60 if full else SHORT_SECONDS), run.stack:
                await one.work(run)
    except Exception as error:
        if not full:
            raise
        run.findings.append(f"{type(error).__name__}: {error}")
    for kind, times in run.needed.items():
        run.claim(run.fired[kind] >= times, f"{kind} fired {run.fired[kind]} times of {times}")
    figures = one.full if full else one.short
    return Result(
        number=one.number,
        title=one.title,
        seed=seed,
        load=one.load.format_map(figures),
        fault=one.fault.format_map(figures),
        notes=run.notes,
        fired=dict(sorted(run.fired.items())),
        findings=run.findings,
        seconds=round(time.monotonic() - begun, 1),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
    )
