"""What the short forms of the rows are run with."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chaos.campaign import SHORT_SECONDS, Result, execute, load_rows
from tests.chaos.faults.brokers import Broker

if TYPE_CHECKING:
    from tests.conftest import KafkaUnderTest

Short = Callable[[int], Awaitable[Result]]
SEED = int(os.environ.get("TRUNKLINE_CHAOS_SEED") or random.SystemRandom().randrange(10**6))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A row that hangs is ended by its own limit, which says more."""
    for item in items:
        if "short" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(SHORT_SECONDS + 60))


@pytest.fixture(scope="module")
def lent_broker() -> Broker | None:
    """A broker that rows may harm, where several rows share one."""
    return None


@pytest.fixture
def short(tmp_path: Path, request: pytest.FixtureRequest, lent_broker: Broker | None) -> Short:
    """Runs a row at its short figures, on the session's broker where the row harms none: `result = await short(4)`."""

    async def run(number: int) -> Result:
        print(f"TRUNKLINE_CHAOS_SEED={SEED}")
        kafka: KafkaUnderTest = request.getfixturevalue("kafka")
        if kafka.kind == "external":
            pytest.skip("a killed member's session lasts 45 s there; the embedded broker lowers that")
        folder = tmp_path / f"row-{number}"
        row = load_rows()[number]
        result = await execute(row, seed=SEED, folder=folder, full=False, bootstrap=kafka.bootstrap, lent=lent_broker)
        print(result)
        assert result.findings == []
        return result

    return run
