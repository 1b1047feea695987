"""What a worker's report says again."""

from __future__ import annotations

from dataclasses import replace

from trunkline.bus.states import State
from trunkline.bus.worker.board import Report

REPORT = Report("orders", "Stream", "w", State.RUNNING, since=1.0, at=5.0, counts={"read": 3}, positions={"in/0": 3})


def test_a_report_says_as_an_earlier_one_whatever_its_time() -> None:
    assert replace(REPORT, at=10.0).says_as(REPORT)


def test_a_report_of_another_state_or_count_says_something_else() -> None:
    assert not replace(REPORT, at=10.0, state=State.PAUSED).says_as(REPORT)
    assert not replace(REPORT, at=10.0, counts={"read": 4}).says_as(REPORT)


def test_a_report_as_data_has_every_field() -> None:
    assert Report(**REPORT.as_dict()) == REPORT
