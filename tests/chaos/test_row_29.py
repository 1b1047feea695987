"""Row 29 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_credentials_that_change_under_load_lose_nothing_and_stop_nobody_for_longer_than_they_must(
    short: Short,
) -> None:
    result = await short(29)
    assert sum(result.fired.values()) == 1
