"""Row 2 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


@pytest.mark.slow
async def test_without_a_fault_nothing_is_lost_repeated_or_swapped(short: Short) -> None:
    result = await short(2)
    assert result.findings == []
    assert not result.fired, "a fault fired"
