"""Row 26 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


@pytest.mark.slow
async def test_members_that_come_and_go_leave_no_threads_and_no_open_files_behind(short: Short) -> None:
    result = await short(26)
    assert result.fired["rebalance"] == 4
