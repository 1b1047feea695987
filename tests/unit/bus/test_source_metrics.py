"""What metrics say of a source's progress: nothing that is not true now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from trunkline.bus.runtime import SplitProgress
from trunkline.bus.states import State
from trunkline.bus.worker.sourcemetrics import SourceMetrics


def samples(state: State, *progress: SplitProgress) -> dict[tuple[str, str], float]:
    host: Any = SimpleNamespace(name="files", state=state, progress=progress)
    return {(name, labels[1]): value for name, labels, value in SourceMetrics(lambda: cast(Any, [host])).samples()}


def test_the_time_left_has_a_series_only_while_the_source_runs_and_something_moves() -> None:
    moving, still = SplitProgress("a", 25, 100, "a.csv", 4.0), SplitProgress("b", 50, 100, "b.csv", None)
    shares = {("trunkline_source_progress_ratio", "a"): 0.25, ("trunkline_source_progress_ratio", "b"): 0.5}
    assert samples(State.RUNNING, moving, still) == {**shares, ("trunkline_source_left_seconds", "a"): 4.0}
    assert samples(State.PAUSED, moving, still) == shares
    assert samples(State.RESTARTING) == {}


def test_of_nothing_everything_is_done() -> None:
    assert SplitProgress("a", 0, 0, "a.csv", None).share == 1.0
