"""The dead-letter threshold of a pipeline."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.errors import HaltError
from trunkline.core.manifests.models import DeadLetterSpec


def threshold(stop_above: int | None = 10, of: int = 20) -> DeadLetterThreshold:
    """A threshold of a pipeline called `out`."""
    return DeadLetterThreshold(DeadLetterSpec(stop_above=stop_above, of=of), "out")


def test_one_more_than_allowed_halts_the_pipeline_and_says_how_to_go_on() -> None:
    one = threshold()
    one.note(10, 10)
    with pytest.raises(HaltError) as halted:
        one.note(1, 1)
    assert halted.value.code == "deadletters.threshold"
    assert "11 of the last 11 records" in halted.value.message
    assert "trunkline restart out" in (halted.value.hint or "")


def test_dead_letters_among_many_good_records_never_halt_it_and_one_more_does() -> None:
    one = threshold()
    for _ in range(1000):
        one.note(20, 10)
    with pytest.raises(HaltError):
        one.note(20, 11)


def test_only_the_last_records_count() -> None:
    one = threshold()
    for _ in range(10):
        one.note(10, 10)
        one.note(20, 0)
    one.note(10, 10)
    with pytest.raises(HaltError):
        one.note(1, 1)


def test_a_large_portion_counts_with_the_share_of_it_that_lies_in_the_window() -> None:
    threshold().note(10_000, 5_000)
    with pytest.raises(HaltError):
        threshold().note(10_000, 6_000)


def test_zero_halts_at_the_first_and_null_never() -> None:
    threshold(stop_above=None).note(1_000, 1_000)
    first = threshold(stop_above=0)
    first.note(1_000, 0)
    with pytest.raises(HaltError):
        first.note(1, 1)


def test_a_threshold_that_can_not_be_reached_is_refused() -> None:
    with pytest.raises(ValidationError, match="raise `of`"):
        DeadLetterSpec(stop_above=20, of=20)
