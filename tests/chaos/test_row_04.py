"""Row 4 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_a_killed_worker_loses_nothing_and_repeats_no_effect(short: Short) -> None:
    result = await short(4)
    assert result.fired["kill -9"] == 1
