"""Row 3 in short. It needs no broker."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.campaign import execute, load_rows
from tests.chaos.conftest import SEED
from tests.chaos.schedules import run_schedules


async def test_any_order_of_faults_loses_repeats_and_swaps_nothing_and_a_seed_replays(tmp_path: Path) -> None:
    result = await execute(load_rows()[3], seed=SEED, folder=tmp_path, full=False)
    assert result.findings == []


def test_two_seeds_are_two_schedules() -> None:
    assert run_schedules(5, 1) != run_schedules(5, 2)
