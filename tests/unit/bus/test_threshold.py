"""The dead-letter threshold of a pipeline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.manifests.models import DeadLetterSpec


def threshold(stop_above: int | None = 10, of: int = 20) -> DeadLetterThreshold:
    """A threshold of a pipeline called `out`."""
    return DeadLetterThreshold(DeadLetterSpec(stop_above=stop_above, of=of), "out")


def all_fine(one: DeadLetterThreshold, dead: int) -> bool:
    """Whether so many more dead letters are none too many."""
    return not any([one.died() for _ in range(dead)])  # noqa: C419 (each of them dies)


def test_one_more_than_allowed_halts_the_pipeline_and_says_how_to_go_on() -> None:
    one = threshold()
    assert all_fine(one, 10)
    halt = one.died()
    assert halt is not None
    assert halt.code == "deadletters.threshold"
    assert "11 of the last 11 records" in halt.message
    assert "trunkline restart out" in (halt.hint or "")


def test_dead_letters_among_many_good_records_never_halt_it_and_one_more_does() -> None:
    one = threshold()
    for _ in range(1000):
        one.ended(10)
        assert all_fine(one, 10)
    one.ended(9)
    assert one.died() is not None


def test_only_the_last_records_count() -> None:
    one = threshold()
    for _ in range(10):
        assert all_fine(one, 10)
        one.ended(20)
    assert all_fine(one, 10)
    assert one.died() is not None


@given(st.lists(st.booleans(), max_size=80), st.integers(0, 6))
def test_each_record_counts_as_long_as_it_is_among_the_last(outcomes: list[bool], allowed: int) -> None:
    one = threshold(allowed, 7)
    for number, dead in enumerate(outcomes, 1):
        among = sum(outcomes[max(0, number - 7) : number])
        if dead:
            assert (one.died() is not None) == (among > allowed)
        else:
            one.ended(1)


def test_zero_halts_at_the_first_and_null_never() -> None:
    assert all_fine(threshold(stop_above=None), 1_000)
    first = threshold(stop_above=0)
    first.ended(1_000)
    assert first.died() is not None


def test_what_did_not_happen_does_not_count() -> None:
    one = threshold()
    assert all_fine(one, 10)
    one.forget()
    assert all_fine(one, 10)


def test_a_threshold_that_can_not_be_reached_is_refused() -> None:
    with pytest.raises(ValidationError, match="raise `of`"):
        DeadLetterSpec(stop_above=20, of=20)
