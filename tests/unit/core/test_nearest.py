"""Hints that name what was probably meant."""

from __future__ import annotations

from trunkline.core.errors import did_you_mean, nearest


def test_the_nearest_of_thousands_is_found_wherever_it_stands() -> None:
    topics = [f"team{number}.orders" for number in range(5000)]
    assert did_you_mean("team4711.orderss", topics) == "did you mean 'team4711.orders'?"
    assert did_you_mean("team4711.orderss", reversed(topics)) == "did you mean 'team4711.orders'?"


def test_nothing_near_is_no_hint() -> None:
    assert nearest("payments", ["orders", "customers", "p", "a" * 300]) is None
