"""How long to wait, and when to stop trying: back-off and breaker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bus.retry import Breaker, backoff
from trunkline.bus.states import reconnect_delay, restart_delay
from trunkline.core.manifests.models import RetrySpec


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    attempt=st.integers(1, 10_000),
    low=st.floats(0, 10),
    high=st.floats(0, 1000),
)
def test_the_wait_is_between_nothing_and_the_doubled_delay_and_never_above_the_longest(
    attempt: int, low: float, high: float
) -> None:
    spec = RetrySpec(min_delay=low, max_delay=high)
    limit = min(high, low * 2.0 ** (min(attempt, 61) - 1))
    assert 0.0 <= backoff(spec, attempt) <= limit
    assert backoff(spec, attempt, rng=lambda _low, most: most) == limit
    assert backoff(spec, attempt, rng=lambda least, _most: least) == 0.0


def test_the_upper_bound_doubles_from_call_to_call() -> None:
    spec = RetrySpec(min_delay=0.5, max_delay=5)
    assert [backoff(spec, attempt, rng=lambda _low, most: most) for attempt in range(1, 7)] == [0.5, 1, 2, 4, 5, 5]


def test_the_breaker_opens_when_different_records_fail_with_no_success_between() -> None:
    breaker = Breaker(records=3, clock=Clock())
    for record in (1, 2):
        breaker.failed(record)
    assert not breaker.is_open
    breaker.failed(3)
    assert breaker.is_open


def test_one_record_that_always_fails_does_not_open_the_breaker() -> None:
    breaker = Breaker(records=3, clock=Clock())
    for _ in range(50):
        breaker.failed("the same")
    assert not breaker.is_open
    assert breaker.delay() == 0.0


def test_a_success_between_keeps_the_breaker_closed() -> None:
    breaker = Breaker(records=3, clock=Clock())
    for record in range(20):
        breaker.failed(record)
        if record % 2:
            breaker.succeeded()
    assert not breaker.is_open


def test_an_open_breaker_lets_one_probe_through_at_a_time_and_waits_longer_after_each_failure() -> None:
    clock = Clock()
    breaker = Breaker(records=1, longest=8, clock=clock)
    breaker.failed(0)
    waits = []
    for _ in range(5):
        waits.append(breaker.delay())
        clock.now += breaker.delay()
        assert breaker.delay() == 0.0
        breaker.started()
        assert breaker.delay() > 0.0  # a probe is under way
        breaker.failed(0)
    assert waits == [1, 2, 4, 8, 8]


def test_a_probe_of_many_records_counts_as_one_failure() -> None:
    clock = Clock()
    breaker = Breaker(records=1, longest=60, clock=clock)
    for record in range(200):  # one call with a batch, and calls that were under way when it opened
        breaker.failed(record)
    assert breaker.delay() == 1.0
    clock.now += 1
    breaker.started()
    for record in range(200):
        breaker.failed(record)
    assert breaker.delay() == 2.0


def test_a_probe_that_is_answered_closes_the_breaker_and_the_waits_begin_anew() -> None:
    clock = Clock()
    breaker = Breaker(records=1, clock=clock)
    for _ in range(3):
        breaker.failed(0)
        clock.now += breaker.delay()
        breaker.started()
    breaker.succeeded()
    assert not breaker.is_open
    breaker.failed(0)
    assert breaker.delay() == 1.0


@pytest.mark.parametrize(
    ("failures", "minutes"), [(0, 0), (1, 0), (2, 2), (3, 6), (4, 12), (8, 56), (9, 60), (500, 60)]
)
def test_a_failed_pipeline_restarts_after_n_squared_plus_n_minutes(failures: int, minutes: int) -> None:
    assert restart_delay(failures) == minutes * 60


def test_reconnecting_waits_at_most_half_a_minute() -> None:
    assert [reconnect_delay(attempt) for attempt in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert reconnect_delay(10**6) == 30
