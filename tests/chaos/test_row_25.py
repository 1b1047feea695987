"""Row 25 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_what_is_done_to_the_audit_trail_is_found_and_who_is_killed_while_appending_leaves_it_sound(
    short: Short,
) -> None:
    result = await short(25)
    assert result.fired["manipulations"] >= 200
