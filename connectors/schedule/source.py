"""The `schedule` source: an event whenever a schedule says so."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from connectors.schedule.settings import ScheduleSettings
from connectors.schedule.ticks import Moments, cron_moments, every_moments, newest
from trunkline.core.contracts import PluginContext, Position, Source, SourceBatch, SourceEvent

TICK_TYPE = "trunkline.schedule.tick"
_LONGEST_PAUSE = 30.0
"""Seconds. The clock may be set while we wait."""
_ON_TIME_LIMIT = 1000


class ScheduleSource(Source):
    """Emits ticks. The position is the last moment that was dealt with, so a restart neither repeats nor loses one."""

    settings_type = ScheduleSettings
    summary: ClassVar[str] = "Ticks by cron expression with time zone, or at even distances."
    default_schema: ClassVar[str | None] = "trunkline/schedule_tick.avsc"

    def __init__(self, settings: ScheduleSettings, connection: Any = None) -> None:
        super().__init__(settings, connection)
        self.clock: Callable[[], float] = time.time
        self._moments: Moments = (
            cron_moments(settings.cron, settings.timezone)
            if settings.cron is not None
            else every_moments(settings.every or 0.0)
        )
        self._payload = None if settings.payload is None else json.dumps(settings.payload, ensure_ascii=False)
        self._pipeline = ""
        self._log: Any = None

    async def open(self, context: PluginContext) -> None:
        self._pipeline = context.pipeline
        self._log = context.log

    async def poll(self, split: str, position: Position | None) -> SourceBatch:
        now = datetime.fromtimestamp(self.clock(), UTC)
        if position is None:
            # A schedule starts when it is first run: what it would have said before is nobody's miss.
            start = {"v": 1, "at": _millis(now), "sequence": 0}
            return SourceBatch(position=start, pause=self._pause(now, now))
        done = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=position["at"])
        ticks, left_out, more = await asyncio.to_thread(self._due, done, now)
        if left_out:
            self._log.warning("schedule.ticks_left_out", pipeline=self._pipeline, after=done.isoformat())
        if not ticks:
            if left_out:
                moved = {**position, "at": _millis(now)}
                return SourceBatch(position=moved, pause=self._pause(now, now))
            return SourceBatch(position=position, pause=self._pause(done, now))
        sequence = position["sequence"]
        events = [self._event(tick, sequence + number) for number, tick in enumerate(ticks, 1)]
        reached = {"v": 1, "at": _millis(ticks[-1]), "sequence": sequence + len(ticks)}
        return SourceBatch(events, position=reached, pause=0.0 if more else self._pause(ticks[-1], now))

    def _due(self, done: datetime, now: datetime) -> tuple[list[datetime], bool, bool]:
        """The ticks to emit, whether missed ones are left out, and whether more are due at once."""
        settings = self.settings
        on_time_since = max(done, now - timedelta(seconds=settings.missed_after))
        on_time: list[datetime] = []
        more = False
        for tick in self._moments(on_time_since - timedelta(milliseconds=1) if on_time_since > done else done):
            if tick > now:
                break
            if len(on_time) == _ON_TIME_LIMIT:
                more = True
                break
            on_time.append(tick)
        missed_until = on_time_since - timedelta(milliseconds=1)
        if missed_until <= done:
            return on_time, False, more
        limit = {"none": 0, "last": 1, "all": settings.max_catch_up}[settings.catch_up]
        if settings.catch_up == "last" and on_time:
            limit = 0
        missed, left_out = newest(self._moments, done, missed_until, limit)
        return missed + on_time, left_out, more

    def _pause(self, after: datetime, now: datetime) -> float:
        upcoming = next(self._moments(after), None)
        if upcoming is None:
            return _LONGEST_PAUSE
        return min(max((upcoming - now).total_seconds(), 0.0), _LONGEST_PAUSE)

    def _event(self, tick: datetime, sequence: int) -> SourceEvent:
        name = self.settings.name or self._pipeline
        moment = tick.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        value = {"scheduled_at": tick, "sequence": sequence, "name": name, "payload": self._payload}
        return SourceEvent(
            value, id=f"{self._pipeline}@{moment}", type=TICK_TYPE, subject=name, time=tick, key=name, place=moment
        )


def _millis(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
