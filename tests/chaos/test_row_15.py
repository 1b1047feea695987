"""Row 15 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


@pytest.mark.slow
async def test_a_branch_that_fails_and_a_killed_worker_cost_no_branch_an_event(short: Short) -> None:
    result = await short(15)
    assert result.fired["kill -9"] == 1
    assert result.fired["answer 503"] >= 1
    assert result.notes["dead letters"] > 0
