"""Row 30 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_of_two_people_who_change_manifests_at_once_neither_loses_a_change_and_only_broken_pipelines_stop(
    short: Short,
) -> None:
    result = await short(30)
    assert result.notes["refused with the difference"] >= 1
