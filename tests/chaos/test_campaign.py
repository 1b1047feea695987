"""The campaign: what makes a row fail, what is run again, and what the report says."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.campaign import Row, Run, execute, load_rows
from tests.chaos.checker import Promise
from tests.chaos.history import Acknowledged, History, Sent
from tests.chaos.results import Results, Stored, code_version

Work = Callable[[Run], Awaitable[None]]


def _row(work: Work) -> Row:
    return Row(99, "a trial", "{events} events", "{events} kills", {"events": 1000}, {"events": 5}, 1, work)


async def _fires_once(run: Run) -> None:
    run.fires({"kill": 1})
    run.note("drawn", run.chance.randrange(10**9))


async def test_a_row_whose_faults_did_not_fire_has_failed(tmp_path: Path) -> None:
    async def work(run: Run) -> None:
        run.must_fire("kill", 2)
        await _fires_once(run)

    result = await execute(_row(work), seed=1, folder=tmp_path, full=True)
    assert result.findings == ["kill fired 1 times of 2"]
    assert not result.passed


async def test_what_a_row_raises_is_a_finding(tmp_path: Path) -> None:
    async def work(_run: Run) -> None:
        raise TimeoutError("nothing came")

    result = await execute(_row(work), seed=1, folder=tmp_path, full=True)
    assert result.findings == ["TimeoutError: nothing came"]


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "raises"])
async def test_what_a_row_does_to_the_environment_ends_with_it(
    ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAOS_CHANGED", "before")
    monkeypatch.setenv("CHAOS_REMOVED", "before")
    before = dict(os.environ)

    async def work(_run: Run) -> None:
        os.environ.update(CHAOS_CHANGED="within", CHAOS_ADDED="within")
        del os.environ["CHAOS_REMOVED"]
        assert ends, "it failed"

    with nullcontext() if ends else pytest.raises(AssertionError, match="it failed"):
        await execute(_row(work), seed=1, folder=tmp_path, full=False)
    assert dict(os.environ) == before


async def test_what_the_checker_finds_is_a_finding_and_the_history_is_kept(tmp_path: Path) -> None:
    async def work(run: Run) -> None:
        run.judge(History([Sent("e1", "door"), Acknowledged("e1", "door")]), [Promise("sink", ("door",))])

    result = await execute(_row(work), seed=1, folder=tmp_path, full=True)
    assert result.findings == ["sink: lost, 1: e1"]
    assert (tmp_path / "history.jsonl").exists()


async def test_the_same_seed_draws_the_same_and_another_one_does_not(tmp_path: Path) -> None:
    drawn = [
        (await execute(_row(_fires_once), seed=seed, folder=tmp_path, full=True)).notes["drawn"] for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


async def test_a_row_is_not_run_again_unless_seed_or_code_changed_or_it_failed(tmp_path: Path) -> None:
    one, results = _row(_fires_once), Results(tmp_path / "results")
    result = await execute(one, seed=1, folder=tmp_path, full=True)
    stored = Stored(result, code_version(one), {"Kafka": "4"})
    assert not results.passed(one, 1)
    results.store(stored)
    assert results.of(99) == stored
    assert results.passed(one, 1)
    assert not results.passed(one, 2)
    results.store(replace(stored, code="another"))
    assert not results.passed(one, 1)
    results.store(replace(stored, result=replace(result, findings=["lost"])))
    assert not results.passed(one, 1)


async def test_the_report_shows_load_faults_figures_seed_verdict_and_versions(tmp_path: Path) -> None:
    result = await execute(_row(_fires_once), seed=321, folder=tmp_path, full=True)
    text = report.page([Stored(result, "code", {"Trunkline": "abc", "Kafka": "4.3.1"})])
    line = next(line for line in text.splitlines() if line.startswith("| 99 "))
    for part in ("a trial", "1000 events", "drawn", "kill 1", "| 321 |", "passed"):
        assert part in line
    assert "| 99 | " in text
    assert "4.3.1" in text
    failed = report.page([Stored(replace(result, findings=["sink: lost, 1: e1"]), "code", {"Kafka": "4.3.1"})])
    assert "**failed**" in failed
    assert "- row 99: sink: lost, 1: e1" in failed


@pytest.mark.parametrize("number", load_rows())
def test_a_row_shows_its_own_figures(number: int) -> None:
    one = load_rows()[number]
    for figures in (one.full, one.short):
        assert one.load.format_map(figures)
        assert one.fault.format_map(figures)
