"""The conformance of the `schedule` source."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from connectors.schedule.source import ScheduleSource
from trunkline.core.contracts import Source, SourceEvent
from trunkline.core.testing import NotApplicableError, SourceKit, source_suite

_START = 1_700_000_000.0 - 1_700_000_000 % 60


class ScheduleKit(SourceKit):
    """A clock of its own; a minute that passes is something that happens."""

    begins_at_first_poll: ClassVar[bool] = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._now = _START

    @property
    def config(self) -> Any:
        return {"every": "1m", "catch_up": "all"}

    def arrange(self, source: Source) -> None:
        assert isinstance(source, ScheduleSource)
        source.clock = lambda: self._now

    async def happen(self, count: int) -> None:
        self._now += 60 * count

    def number(self, event: SourceEvent) -> int:
        assert event.time is not None
        return round((event.time.timestamp() - _START) / 60) - 1

    async def happen_badly(self) -> None:
        raise NotApplicableError("time passes well")

    async def break_down(self) -> None:
        raise NotApplicableError("there is no other side")

    async def throttle(self) -> float:
        raise NotApplicableError("there is no other side")

    async def refuse(self) -> None:
        raise NotApplicableError("there is no other side")

    async def hang(self) -> None:
        raise NotApplicableError("there is no other side")


TestScheduleSource = source_suite(ScheduleSource, factory=ScheduleKit)
