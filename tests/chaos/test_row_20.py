"""Row 20 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_broken_avro_kills_no_worker_and_is_never_read_as_something_else(short: Short) -> None:
    result = await short(20)
    assert result.fired["crafted data"] >= 60
