"""Row 14 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_failures_of_some_keys_swap_no_events_and_lose_none(short: Short) -> None:
    result = await short(14)
    assert result.fired["answer 503"] == 20
