"""The pace of work and the time that the rest takes."""

from __future__ import annotations

import pytest

from tests.clock import Clock
from trunkline.bus.accounting.pace import Pace


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


def test_steady_work_has_its_pace_from_the_second_look_on(clock: Clock) -> None:
    pace = Pace(clock)
    pace.note(1000)
    assert (pace.per_second, pace.seconds_for(10)) == (0.0, None)
    for _ in range(5):
        clock.now += 2
        pace.note(1000 + 50 * (clock.now - 100))
        assert pace.per_second == pytest.approx(50)
    assert pace.seconds_for(500) == pytest.approx(10)
    assert pace.seconds_for(0) == 0.0


def test_the_pace_follows_a_change_within_a_minute_and_does_not_leap(clock: Clock) -> None:
    pace, done = Pace(clock), 0.0
    for _ in range(120):
        pace.note(done)
        clock.now, done = clock.now + 1, done + 100
    pace.note(done)
    clock.now, done = clock.now + 1, done + 10
    pace.note(done)
    assert 90 < pace.per_second < 100
    for _ in range(120):
        clock.now, done = clock.now + 1, done + 10
        pace.note(done)
    assert pace.per_second == pytest.approx(10, rel=0.2)


def test_work_that_has_stood_still_for_a_while_has_no_pace_whether_anybody_looks_or_not(clock: Clock) -> None:
    for looks in (True, False):
        pace = Pace(clock)
        for done in (0, 100, 200):
            clock.now += 1
            pace.note(done)
        for _ in range(9):
            clock.now += 1
            if looks:
                pace.note(200)
        assert pace.per_second > 0, "a short break is none"
        clock.now += 2
        assert (pace.per_second, pace.seconds_for(4), pace.seconds_for(0)) == (0.0, None, 0.0)


def test_what_stood_still_has_a_pace_again_as_soon_as_it_moves(clock: Clock) -> None:
    pace = Pace(clock)
    for done in (0, 100, 200, 200, 300):
        pace.note(done)
        clock.now += 40 if done == 200 else 1
    assert pace.per_second > 0


def test_work_that_moves_in_steps_does_not_stand_still_between_them(clock: Clock) -> None:
    pace = Pace(clock)
    for step in range(8):
        pace.note(100 * step)
        clock.now += 25
    clock.now += 40
    assert pace.per_second > 0
    clock.now += 60
    assert pace.per_second == 0


def test_a_count_that_falls_back_begins_anew(clock: Clock) -> None:
    pace = Pace(clock)
    for done in (0, 1000, 10, 20):
        pace.note(done)
        clock.now += 1
    assert pace.per_second == pytest.approx(10)
