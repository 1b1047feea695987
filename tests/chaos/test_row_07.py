"""Row 7 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_who_joins_or_leaves_loses_nothing_and_commits_only_its_own(short: Short) -> None:
    result = await short(7)
    assert result.fired.get("joined", 0) + result.fired.get("left", 0) == 3
