"""Row 28 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_a_gap_is_named_by_partition_and_count_and_nothing_else_is_passed_over_or_read_again(
    short: Short,
) -> None:
    result = await short(28)
    assert result.notes["deleted unread"] >= 1
