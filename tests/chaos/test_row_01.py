"""Row 1 in short: the checker finds what is wrong, and accepts what is right."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.checker import check
from tests.chaos.conftest import Short
from tests.chaos.history import History
from tests.chaos.planted import PLANTS, PROMISE, Plant, good_history, planted


def test_a_good_history_is_accepted() -> None:
    assert check(History(good_history()), [PROMISE]) == []


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_nothing_that_is_right(plant: Plant) -> None:
    for seed in range(30):
        history, kind = planted(plant, random.Random(seed))
        kinds = {finding.kind for finding in check(history, [PROMISE])}
        if kind == "lost":
            kinds -= {"committed before it was settled"}  # what is never settled was also committed too early
        assert len(kinds) == 1, kinds
        assert kind in kinds.pop()


def test_a_finding_names_what_it_is_about() -> None:
    history, _ = planted(PLANTS[0], random.Random(1))
    finding = check(history, [PROMISE])[0]
    assert finding.kind == "lost"
    assert finding.named[0] in str(finding)


def test_a_history_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    history = History(good_history())
    history.save(tmp_path / "history.jsonl")
    assert list(History.load(tmp_path / "history.jsonl")) == list(history)


@pytest.mark.kafka
async def test_mutant_buses_are_caught_and_a_sound_one_is_accepted(short: Short) -> None:
    result = await short(1)
    assert result.notes["caught"] == "11 of 11"
