"""Row 6 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_a_member_that_wakes_up_commits_nothing_that_is_not_its_own(short: Short) -> None:
    result = await short(6)
    assert result.fired["SIGSTOP"] == 1
    assert result.fired["partitions moved"] == 1
