"""What `trunkline status` says of a pipeline's progress."""

from __future__ import annotations

import time
from typing import Any

import pytest

from trunkline.bus.accounting.lag import Unknown
from trunkline.bus.accounting.outcomes import Outcomes
from trunkline.bus.states import State
from trunkline.cli.statustable import STATUS_COLUMNS, progress_text, remarks, status_row, status_table
from trunkline.control.status import PipelineStatus, judge
from trunkline.core.cause import Cause
from trunkline.core.errors import CheckFailedError


def status(kind: str, state: State = State.RUNNING, **more: Any) -> PipelineStatus:
    return PipelineStatus("p", kind, state, None, 1, **more)


def of(done: float, total: float, left: float | None, what: str = "orders.csv") -> dict[str, Any]:
    return {"done": done, "total": total, "what": what, "seconds_left": left}


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        ([of(42, 100, 185.0)], "42 % of orders.csv, 3m5s left"),
        ([of(999, 1000, 0.4)], "99 % of orders.csv, 0s left"),
        ([of(42, 100, None)], "42 % of orders.csv"),
        ([of(100, 100, 0.0)], "100 % of orders.csv"),
        ([of(0, 0, 0.0)], "100 % of orders.csv"),
        ([of(50, 100, 10.0), of(20, 100, 60.0, "b.csv")], "35 % of b.csv and 1 more, 1m left"),
        ([], None),
    ],
)
def test_a_source_shows_its_share_and_the_time_left(progress: list[dict[str, Any]], text: str | None) -> None:
    assert progress_text(status("Source", progress=progress)) == text


@pytest.mark.parametrize(
    ("lag", "pace", "text"),
    [
        (60_000, 1000.0, "1,000/s, 1m left"),
        (0, 1000.0, None),
        (100, 0.0, None),
    ],
)
def test_a_reader_that_is_behind_shows_its_pace_and_when_it_will_have_caught_up(
    lag: int, pace: float, text: str | None
) -> None:
    assert progress_text(status("Sink", lag_records=lag, per_second=pace)) == text


@pytest.mark.parametrize("state", [State.PAUSED, State.FAILED, State.RESTARTING, State.STOPPED, State.UNASSIGNED])
def test_of_a_pipeline_that_does_not_run_nobody_knows_how_long_the_rest_takes(state: State) -> None:
    sink = status("Sink", state, lag_records=60_000, per_second=1000.0)
    assert (sink.seconds_left, progress_text(sink)) == (None, None)
    source = status("Source", state, progress=[of(42, 100, 4.0)])
    assert (source.seconds_left, progress_text(source)) == (None, "42 % of orders.csv")


def test_a_lag_that_is_not_known_is_called_so_and_an_estimate_is_called_one() -> None:
    def cells(**more: Any) -> tuple[Any, Any, str | None]:
        one = status("Sink", per_second=5.0, **more)
        columns, (row,) = status_table([one])
        found = dict(zip(columns, row, strict=True))
        return found["LAG"], found["LAG s"], found["PROGRESS"]

    assert cells(lag_records=None, lag_unknown=(Unknown.TOPIC_GONE,)) == ("unknown", "unknown", None)
    assert cells(lag_records=0, lag_seconds=0.0) == ("0", "0.0", None)
    assert cells(lag_records=1234, lag_exact=False, lag_seconds=61.0) == ("about 1234", "61.0", "5/s, 4m6s left")


def test_the_row_has_a_cell_for_each_column() -> None:
    assert len(status_row(status("Sink"))) == len(STATUS_COLUMNS)
    assert "seconds_left" in status("Sink").as_dict()


CLASSES = ("DELIVERED", "ABSORBED", "FILTERED", "PARKED", "DEAD", "DROPPED", "REDRIVING")


def test_what_was_read_is_the_sum_of_the_columns_behind_it() -> None:
    some = Outcomes(read=2063, delivered=2030, dead=10, parked=15, redriving=5, dropped=3)
    none = Outcomes(read=7, delivered=6, filtered=1)
    columns, rows = status_table([status("Sink", outcomes=some), status("Source", outcomes=none)])
    for row in (dict(zip(columns, row, strict=True)) for row in rows):
        assert row["READ"] == sum(row[name] or 0 for name in CLASSES if name in columns)
        assert row["LEDGER"] == "closes"
    assert {"PARKED", "REDRIVING", "DROPPED"} < set(columns)
    assert "ABSORBED" not in columns, "nobody absorbed anything"
    assert list(remarks(status("Sink", outcomes=some))) == []


def test_where_nothing_was_parked_no_column_says_so() -> None:
    columns, (row,) = status_table([status("Sink", outcomes=Outcomes(read=1, delivered=1))])
    assert "PARKED" not in columns
    assert len(columns) == len(row)


def test_counts_that_do_not_add_up_are_explained() -> None:
    more = Outcomes(read=5, delivered=5, dead=2, ahead=1)
    assert [remark.split(" ", 1)[0] for remark in remarks(status("Sink", outcomes=more))] == ["2", "1"]
    assert "gone from its dead-letter topic" in next(remarks(status("Sink", outcomes=Outcomes(read=5, delivered=3))))


def test_dead_letters_that_were_not_counted_are_called_an_estimate() -> None:
    columns, (row,) = status_table([status("Sink", outcomes=Outcomes(read=9, delivered=2, dead=7, exact=False))])
    assert dict(zip(columns, row, strict=True))["DEAD"] == "about 7"


def test_a_pipeline_fails_where_it_failed_restarts_without_an_end_or_its_workers_are_silent() -> None:
    old, young = (Cause("kafka.timeout", "away", since=time.time() - age) for age in (600, 5))
    assert status("Sink", State.FAILED).failing
    assert status("Sink", State.UNASSIGNED, silent=True).failing
    assert status("Sink", State.RESTARTING, cause=old).failing
    assert not status("Sink", State.RESTARTING, cause=young).failing
    for state in (State.RUNNING, State.PAUSED, State.STOPPED, State.UNASSIGNED):
        assert not status("Sink", state, cause=old).failing
    with pytest.raises(CheckFailedError, match="1 of 2 pipelines can't do their work: p"):
        judge([status("Sink", State.FAILED), status("Sink")])
    judge([status("Sink")])
