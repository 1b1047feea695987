"""A schedule ticks at the moments it names, once each, through restarts, gaps and changes of the clock."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import fastavro
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.schedule.settings import ScheduleSettings
from connectors.schedule.source import ScheduleSource
from connectors.schedule.ticks import cron_moments, every_moments, newest
from trunkline.core.contracts import PluginContext, SourceEvent

SCHEMAS = Path(__file__).parents[3] / "schemas"
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


class Hand:
    """A schedule whose clock is turned by hand; positions go through JSON."""

    def __init__(self, **config: Any) -> None:
        self.config = config
        self.now = NOON
        self.position: Any = None
        self.source = self.made()

    def made(self) -> ScheduleSource:
        """A source anew, as after a restart."""
        source = ScheduleSource(ScheduleSettings.model_validate(self.config))
        source.clock = self.time
        return source

    def time(self) -> float:
        """What the clock shows."""
        return self.now.timestamp()

    async def restart(self) -> None:
        self.source = self.made()
        await self.source.open(PluginContext("test", "nightly", Path(), structlog.get_logger()))

    async def at(self, moment: datetime) -> list[SourceEvent]:
        """All events until the schedule wants to wait."""
        self.now = moment
        found: list[SourceEvent] = []
        for _ in range(100):
            batch = await self.source.poll("0", self.position)
            self.position = json.loads(json.dumps(batch.position))
            found += batch.events
            if batch.pause:
                self.pause = batch.pause
                return found
        raise AssertionError("the schedule never waits")


async def started(**config: Any) -> Hand:
    hand = Hand(**config)
    await hand.restart()
    assert await hand.at(NOON) == []
    return hand


def times(events: list[SourceEvent]) -> list[str]:
    return [event.value["scheduled_at"].isoformat() for event in events]


async def test_a_tick_comes_at_its_moment_and_once() -> None:
    hand = await started(cron="*/5 * * * *")
    assert await hand.at(NOON + timedelta(minutes=4, seconds=59.9)) == []
    assert hand.pause == pytest.approx(0.1)
    assert times(await hand.at(NOON + timedelta(minutes=5))) == ["2024-03-01T12:05:00+00:00"]
    assert await hand.at(NOON + timedelta(minutes=5, seconds=1)) == []


async def test_a_tick_says_when_it_was_due_which_it_is_and_what_goes_with_it() -> None:
    hand = await started(every="1m", payload={"report": "daily"})
    first, second = await hand.at(NOON + timedelta(minutes=1)), await hand.at(NOON + timedelta(minutes=2))
    [tick] = second
    assert tick.value == {
        "scheduled_at": NOON + timedelta(minutes=2),
        "sequence": 2,
        "name": "nightly",
        "payload": '{"report": "daily"}',
    }
    assert (tick.id, tick.subject, tick.time) == (
        "nightly@2024-03-01T12:02:00.000Z",
        "nightly",
        NOON + timedelta(minutes=2),
    )
    assert first[0].id != tick.id


async def test_ticks_fit_the_built_in_schema() -> None:
    assert ScheduleSource.default_schema is not None
    schema = json.loads((SCHEMAS / ScheduleSource.default_schema).read_text())
    hand = await started(every="1m")
    [tick] = await hand.at(NOON + timedelta(minutes=1))
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, tick.value, strict=True)
    buffer.seek(0)
    assert fastavro.schemaless_reader(buffer, schema, None) == tick.value


async def test_a_restart_neither_repeats_nor_loses_a_tick() -> None:
    hand = await started(cron="* * * * *")
    found: list[str] = []
    for second in range(10, 60 * 20, 25):
        await hand.restart()
        found += times(await hand.at(NOON + timedelta(seconds=second)))
    assert found == [(NOON + timedelta(minutes=minute)).isoformat() for minute in range(1, 20)]


async def test_the_same_position_gives_the_same_ticks() -> None:
    hand = await started(cron="* * * * *")
    hand.now = NOON + timedelta(minutes=3)
    first = await hand.source.poll("0", hand.position)
    again = await hand.source.poll("0", hand.position)
    assert [event.id for event in first.events] == [event.id for event in again.events]
    assert first.position == again.position


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("none", []),
        ("last", ["2024-03-04T06:00:00+00:00"]),
        ("all", ["2024-03-02T06:00:00+00:00", "2024-03-03T06:00:00+00:00", "2024-03-04T06:00:00+00:00"]),
    ],
)
async def test_missed_ticks_are_caught_up_as_told(catch_up: str, expected: list[str]) -> None:
    hand = await started(cron="0 6 * * *", catch_up=catch_up)
    assert times(await hand.at(NOON + timedelta(days=3))) == expected
    assert await hand.at(NOON + timedelta(days=3, minutes=1)) == []
    assert times(await hand.at(datetime(2024, 3, 5, 6, tzinfo=UTC))) == ["2024-03-05T06:00:00+00:00"]


async def test_a_year_of_missed_seconds_costs_only_what_is_caught_up() -> None:
    hand = await started(every="1s", catch_up="all", max_catch_up=50, missed_after="10s")
    found = await hand.at(NOON + timedelta(days=366))
    assert len(found) == 61
    assert found[-1].value["scheduled_at"] == NOON + timedelta(days=366)
    assert [event.value["sequence"] for event in found] == list(range(1, 62))


async def test_a_clock_that_is_set_back_repeats_nothing() -> None:
    hand = await started(every="1m")
    assert len(await hand.at(NOON + timedelta(minutes=1))) == 1
    assert await hand.at(NOON - timedelta(hours=1)) == []
    assert len(await hand.at(NOON + timedelta(minutes=2))) == 1


def between(expression: str, zone: str, start: datetime, end: datetime) -> list[str]:
    return [tick.isoformat() for tick in takewhile(lambda tick: tick < end, cron_moments(expression, zone)(start))]


def test_a_fixed_hour_that_spring_skips_ticks_right_after_the_gap() -> None:
    start, end = datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC)
    assert between("30 2 * * *", "Europe/Berlin", start, end) == ["2024-03-31T01:00:00+00:00"]


def test_a_fixed_hour_that_autumn_repeats_ticks_once() -> None:
    start, end = datetime(2024, 10, 26, 12, tzinfo=UTC), datetime(2024, 10, 27, 12, tzinfo=UTC)
    assert between("30 2 * * *", "Europe/Berlin", start, end) == ["2024-10-27T00:30:00+00:00"]
    # Asked from inside the repeated hour there is none left for that day.
    assert between("30 2 * * *", "Europe/Berlin", datetime(2024, 10, 27, 1, 15, tzinfo=UTC), end) == []


def test_a_fixed_local_hour_moves_in_utc_with_the_clock() -> None:
    moments = cron_moments("0 6 * * *", "America/New_York")
    ticks = list(islice(moments(datetime(2024, 3, 9, 0, tzinfo=UTC)), 2))
    assert [tick.hour for tick in ticks] == [11, 10]


@settings(max_examples=40, deadline=None)
@given(
    expression=st.sampled_from(["*/20 * * * *", "0 * * * *", "30 2 * * *", "0 0,3 * * *", "15 1-3 * * SUN"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    start=st.sampled_from([datetime(2024, 3, 30), datetime(2024, 10, 26), datetime(2024, 11, 2), datetime(2024, 4, 6)]),  # noqa: DTZ001
    cuts=st.lists(st.integers(0, 3 * 24 * 3600), max_size=5),
)
def test_wherever_one_goes_on_the_moments_are_the_same(
    expression: str, zone: str, start: datetime, cuts: list[int]
) -> None:
    moments = cron_moments(expression, zone)
    begin = start.replace(tzinfo=UTC)
    end = begin + timedelta(days=3)
    whole = list(takewhile(lambda tick: tick <= end, moments(begin)))
    assert whole == sorted(set(whole))
    for cut in cuts:
        middle = begin + timedelta(seconds=cut)
        rest = list(takewhile(lambda tick: tick <= end, moments(middle)))
        assert rest == [tick for tick in whole if tick > middle]
    assert newest(moments, begin, end, 3) == (whole[-3:], len(whole) > 3)


def test_even_distances_count_from_the_epoch() -> None:
    assert next(every_moments(900)(NOON + timedelta(seconds=1))) == NOON + timedelta(minutes=15)
    assert next(every_moments(900)(NOON)) == NOON + timedelta(minutes=15)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"cron": "* * * * *", "every": "1m"},
        {"cron": "61 * * * *"},
        {"cron": "* * *"},
        {"cron": "0 0 31 2 *"},
        {"cron": "* * * * *", "timezone": "Mars/Olympus"},
        {"cron": "* * * * *", "timezone": "../../etc/passwd"},
        {"every": "10ms"},
        {"cron": "* * * * *", "catch_up": "some"},
    ],
)
def test_settings_that_can_not_work_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScheduleSettings.model_validate(config)
