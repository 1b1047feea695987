"""What the log says where a cause begins and ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from trunkline.bus.states import State
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.telling import Telling
from trunkline.core.cause import Cause
from trunkline.core.metrics import end_series

WAITS = Report("told", "Sink", "w", State.RUNNING, 1.0, 5.0, cause=Cause("http.503", "answered 503", since=2.0))


@pytest.mark.parametrize(
    ("state", "said"),
    [(State.RUNNING, ["the pipeline does its work again"]), (State.UNASSIGNED, []), (State.STOPPED, [])],
)
def test_only_a_pipeline_that_runs_is_said_to_do_its_work_again(state: State, said: list[str]) -> None:
    telling = Telling("told")
    try:
        telling.tell(WAITS)
        with capture_logs() as logged:
            telling.tell(replace(WAITS, state=state, cause=None))
    finally:
        end_series(pipeline="told")

    assert [one["event"] for one in logged] == said
