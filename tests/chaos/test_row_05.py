"""Row 5 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_a_killed_broker_costs_nothing_that_was_acknowledged(short: Short) -> None:
    result = await short(5)
    assert result.fired["broker kill -9"] == 1
