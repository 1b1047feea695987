"""How long to wait before something is tried again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trunkline.bus.delivery.retry import backoff
from trunkline.bus.states import reconnect_delay, restart_delay
from trunkline.core.manifests.models import RetrySpec, SinkSpec


@given(
    attempt=st.integers(1, 10_000),
    low=st.floats(0, 10),
    high=st.floats(0, 1000),
)
def test_the_wait_is_between_nothing_and_the_doubled_delay_and_never_above_the_longest(
    attempt: int, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    spec = RetrySpec(min_delay=low, max_delay=high)
    limit = min(high, low * 2.0 ** (min(attempt, 61) - 1))
    assert 0.0 <= backoff(spec, attempt) <= limit
    assert backoff(spec, attempt, rng=lambda _low, most: most) == limit
    assert backoff(spec, attempt, rng=lambda least, _most: least) == 0.0


def test_the_upper_bound_doubles_from_call_to_call() -> None:
    spec = RetrySpec(min_delay=0.5, max_delay=5)
    assert [backoff(spec, attempt, rng=lambda _low, most: most) for attempt in range(1, 7)] == [0.5, 1, 2, 4, 5, 5]


def test_a_first_wait_that_is_longer_than_the_longest_is_refused_where_both_are_said() -> None:
    with pytest.raises(ValidationError, match="longer than max_delay"):
        RetrySpec(min_delay=600, max_delay=15)
    assert RetrySpec(max_delay=0.1).max_delay == 0.1


def test_a_fallback_that_no_record_can_reach_is_refused() -> None:
    spec: dict[str, Any] = {
        "from": "a",
        "start": "latest",
        "connector": "http",
        "fallback": {"connector": "file", "after": 9},
    }
    with pytest.raises(ValidationError, match=r"lower fallback\.after"):
        SinkSpec.model_validate({**spec, "delivery": {"retry": {"attempts": 4}}})
    assert SinkSpec.model_validate({**spec, "delivery": {"retry": {"attempts": 9}}}).fallback is not None


@pytest.mark.parametrize(
    ("failures", "minutes"), [(0, 0), (1, 0), (2, 2), (3, 6), (4, 12), (8, 56), (9, 60), (500, 60)]
)
def test_a_failed_pipeline_restarts_after_n_squared_plus_n_minutes(failures: int, minutes: int) -> None:
    assert restart_delay(failures) == minutes * 60


def test_reconnecting_waits_at_most_half_a_minute() -> None:
    assert [reconnect_delay(attempt) for attempt in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert reconnect_delay(10**6) == 30
