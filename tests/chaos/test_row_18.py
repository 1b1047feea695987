"""Row 18 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_no_forged_or_late_request_is_taken_and_a_repeat_makes_no_event(short: Short) -> None:
    result = await short(18)
    assert result.fired["forged or mutated"] == 30
