"""Row 8 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_a_member_that_was_stuck_commits_nothing_of_anothers_and_the_group_recovers(short: Short) -> None:
    result = await short(8)
    assert result.fired["partitions taken from it"] == 1
    assert result.fired["group recovered"] == 1
