"""The status of pipelines, put together from what workers report, what groups committed and what is applied."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from trunkline.bus.accounting.lag import PipelineLag, Unknown, summed
from trunkline.bus.accounting.outcomes import Outcomes
from trunkline.bus.redrive.counting import count
from trunkline.bus.states import State
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.reported import reported_offsets
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.core.cause import Cause
from trunkline.core.errors import CheckFailedError

_WORST = (State.FAILED, State.RESTARTING, State.RUNNING, State.PAUSED, State.STOPPED, State.UNASSIGNED)
"""What one word says of several workers: the first of these that any of them is in."""
LONG_SECONDS = 60.0
"""What has restarted for longer than this is no passing trouble."""
_BREAKERS = ("open", "half-open", "closed")


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """One pipeline. `since` is in Unix seconds.

    Of the lag what is not known is None, and `lag_unknown` says why; `lag_records` is an estimate where it is not `lag_exact`. A source
    has no lag.
    `outcomes` is None as long as nothing was read. Of its dead letters `redriven` were sent again until now, all in all; `fallback` is how
    many of the delivered records the sink's fallback took since its workers began.
    """

    pipeline: str
    kind: str
    state: State
    since: float | None
    workers: int
    reason: str | None = None
    hint: str | None = None
    cause: Cause | None = None
    """Why it fails, waits or stands still: as its worker says it, or that there is no worker; None while it does its work."""
    silent: bool = False
    """Whether workers that had it have not been heard of lately, and no other has it."""
    finished: bool = False
    outcomes: Outcomes | None = None
    lag_records: int | None = None
    lag_exact: bool = True
    lag_seconds: float | None = None
    lag_unknown: Sequence[Unknown] = ()
    restart_at: float | None = None
    parked_records: int = 0
    """Records that wait in the park now."""
    parked_keys: int = 0
    redriven: int = 0
    fallback: int = 0
    breaker: str = ""
    """How the circuit breaker of a sink's account stands: of several workers the word that is furthest from `closed`."""
    per_second: float = 0.0
    progress: Sequence[Mapping[str, Any]] = ()

    @property
    def seconds_left(self) -> float | None:
        """How long what is there takes at the present pace, if nothing more came; None where nobody can tell, as while nothing moves."""
        if self.state is not State.RUNNING:
            return None
        if self.kind == "Source":
            known = [one["seconds_left"] for one in self.progress]
            return max(known) if known and None not in known else None
        if self.lag_records is None or (self.lag_records and self.per_second <= 0):
            return None
        return self.lag_records / self.per_second if self.lag_records else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The status as data."""
        counts = self.outcomes.as_dict() if self.outcomes is not None else {}
        data = {name: value for name, value in asdict(self).items() if name != "outcomes"}
        waiting = self.outcomes.dead if self.outcomes is not None else 0
        more = {"counts": counts, "dead_waiting": waiting, "ledger_closes": self.closes, "failing": self.failing}
        return {**data, **more, "seconds_left": self.seconds_left}

    @property
    def failing(self) -> bool:
        """Whether somebody should look: it failed, restarts without an end, or its workers have fallen silent."""
        since = self.cause.since if self.cause is not None else time.time()
        long = self.state is State.RESTARTING and time.time() - since > LONG_SECONDS
        return self.state is State.FAILED or self.silent or long

    @property
    def closes(self) -> bool:
        """Whether each record that was read has a class."""
        return self.outcomes is None or self.outcomes.open == 0


def statuses(cluster: Cluster, only: str | None = None) -> list[PipelineStatus]:
    """The status of each pipeline. Counts are those of commits and positions, which are as true as the offsets."""
    reports = cluster.board.reports()
    kinds = pipelines.chosen(pipelines.reported_kinds(reports), pipelines.applied(cluster), only)
    counted = count(cluster.kafka, cluster.names, kinds, pipelines.inputs(cluster), reported_offsets(reports))
    found = []
    for name, kind in kinds.items():
        own = [report for report in reports if report.pipeline == name and not report.removed]
        lag = summed(name, counted.lags[name]) if name in counted.lags else None
        status = _status(name, kind, own, lag)
        found.append(replace(status, outcomes=counted.outcomes.get(name), redriven=counted.redriven.get(name, 0)))
    return found


def status_of_reports(reports: Sequence[Report]) -> PipelineStatus:
    """The status of one pipeline from what workers report of it alone, at least one of them: without what the cluster knows."""
    first = reports[0]
    unknown = (Unknown.BROKER_AWAY,) if first.kind != "Source" else ()
    return replace(_status(first.pipeline, first.kind, reports, None), lag_unknown=unknown)


def judge(found: Sequence[PipelineStatus]) -> None:
    """Raises `CheckFailedError` (`status.failing`) where a pipeline fails."""
    failing = [one.pipeline for one in found if one.failing]
    if failing:
        named = ", ".join(failing[:10]) + (f" and {len(failing) - 10} more" if len(failing) > 10 else "")
        raise CheckFailedError(
            f"{len(failing)} of {len(found)} pipelines can't do their work: {named}",
            hint="docs/runbooks/pipeline-failed.md says what to do",
            code="status.failing",
        )


def _status(
    name: str,
    kind: str,
    reports: Sequence[Report],
    lag: PipelineLag | None,
) -> PipelineStatus:
    fresh = [report for report in reports if not report.stale]
    states = {report.state for report in fresh}
    state = next((one for one in _WORST if one in states), State.UNASSIGNED)
    speaker = next((report for report in fresh if report.state is state and report.reason), None)
    cause = speaker.cause if speaker is not None else None
    if not fresh:
        cause = _nobody(name, reports)
    return PipelineStatus(
        pipeline=name,
        kind=kind,
        state=state,
        since=min((report.since for report in fresh if report.state is state), default=None),
        workers=len([report for report in fresh if report.state not in {State.STOPPED, State.UNASSIGNED}]),
        reason=cause.reason if cause is not None else None,
        hint=cause.hint if cause is not None else None,
        cause=cause,
        silent=not fresh and any(report.state is not State.UNASSIGNED for report in reports),
        finished=any(report.finished for report in fresh),
        lag_records=lag.records if lag is not None else None,
        lag_exact=lag.exact if lag is not None else True,
        lag_seconds=lag.seconds if lag is not None else None,
        lag_unknown=lag.unknown if lag is not None else (),
        parked_records=sum(report.parked_records for report in fresh),
        parked_keys=sum(report.parked_keys for report in fresh),
        breaker=next((word for word in _BREAKERS if any(report.breaker == word for report in fresh)), ""),
        fallback=sum(report.counts.get("fallback", 0) for report in fresh),
        per_second=sum(report.per_second for report in fresh),
        progress=[one for report in fresh for one in report.progress],
        restart_at=min((report.restart_at for report in fresh if report.restart_at is not None), default=None),
    )


def _nobody(pipeline: str, reports: Sequence[Report]) -> Cause:
    """No worker tells of it any more, or yet."""
    last = max(reports, key=lambda one: max(one.at, one.heard_at), default=None)
    if last is None:
        return Cause("worker.none", "no worker has run it yet", hint="`trunkline up` starts a worker")
    return Cause(
        "worker.none",
        f"no worker has reported it lately: the last one was {last.worker}",
        hint=f"see whether its process lives, and its log; `trunkline up` starts another worker, which goes on with {pipeline}",
        since=max(last.at, last.heard_at),
    )
