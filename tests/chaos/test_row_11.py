"""Row 11 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_bad_records_of_twenty_kinds_are_dead_letters_byte_for_byte_and_good_ones_are_delivered(
    short: Short,
) -> None:
    result = await short(11)
    assert result.notes["mixed-send: dead letters"] == result.notes["mixed-work: dead letters"] == 40
