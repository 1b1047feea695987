"""The status of pipelines, put together from what workers report, what groups committed and what is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trunkline.bus.accounting.commits import all_committed
from trunkline.bus.accounting.lag import PipelineLag, Unknown, lags_behind, summed
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.ledger import OUTCOMES, Ledger, total
from trunkline.bus.names import Names
from trunkline.bus.redrive.jobs import JobLog
from trunkline.bus.source.positions import read_positions
from trunkline.bus.states import State
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.reported import reported_offsets
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.core.cause import Cause

_WORST = (State.FAILED, State.RESTARTING, State.RUNNING, State.PAUSED, State.STOPPED, State.UNASSIGNED)
"""What one word says of several workers: the first of these that any of them is in."""
_BREAKERS = ("open", "half-open", "closed")


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """One pipeline. `since` is in Unix seconds; the ledger closes when `open` is 0.

    Of the lag what is not known is None, and `lag_unknown` says why; `lag_records` is an estimate where it is not `lag_exact`. A source
    has no lag.
    Of all that became dead letters, also what failed again after a redrive, `redriven` were sent again and `dead_waiting` were not.
    """

    pipeline: str
    kind: str
    state: State
    since: float | None
    workers: int
    reason: str | None = None
    hint: str | None = None
    cause: Cause | None = None
    """Why it fails, waits or stands still, as its worker says it; None while it does its work."""
    finished: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    open: int = 0
    lag_records: int | None = None
    lag_exact: bool = True
    lag_seconds: float | None = None
    lag_unknown: Sequence[Unknown] = ()
    restart_at: float | None = None
    parked_records: int = 0
    """Records that wait in the park now."""
    parked_keys: int = 0
    redriven: int = 0
    dead_waiting: int = 0
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
        return {**asdict(self), "ledger_closes": self.open == 0, "seconds_left": self.seconds_left}


def statuses(cluster: Cluster, only: str | None = None) -> list[PipelineStatus]:
    """The status of each pipeline. Counts are those of commits and positions, which are as true as the offsets."""
    kafka, names = cluster.kafka, cluster.names
    reports = cluster.board.reports()
    kinds = pipelines.chosen(pipelines.reported_kinds(reports), pipelines.applied(cluster), only)
    readers = [name for name, kind in kinds.items() if kind != "Source"]
    commits = all_committed(kafka, names, readers)
    ledgers = committed_ledgers(names, commits)
    lags = lags_behind(kafka, names, commits, pipelines.inputs(cluster), reported_offsets(reports))
    sources = _source_counts(kafka, names)
    redriven = JobLog.read(kafka, names, patient=False).redriven
    found = []
    for name, kind in kinds.items():
        counts, left_open = sources.get(name, ({}, 0)) if kind == "Source" else ledgers.get(name, ({}, 0))
        own = [report for report in reports if report.pipeline == name and not report.removed]
        lag = summed(name, lags[name]) if name in lags else None
        status = _status(name, kind, own, counts, left_open, lag)
        dead = counts.get("dead", 0) + counts.get("dead_again", 0)
        sent = redriven.get(name, 0)
        found.append(replace(status, redriven=sent, dead_waiting=max(0, dead - sent)))
    return found


def status_of_reports(reports: Sequence[Report]) -> PipelineStatus:
    """The status of one pipeline from what workers report of it alone, at least one of them: without what the cluster knows."""
    first = reports[0]
    counts = dict(first.counts) if len(reports) == 1 else {}
    return _status(first.pipeline, first.kind, reports, counts, 0, None)


def _status(
    name: str,
    kind: str,
    reports: Sequence[Report],
    counts: dict[str, int],
    left_open: int,
    lag: PipelineLag | None,
) -> PipelineStatus:
    fresh = [report for report in reports if not report.stale]
    states = {report.state for report in fresh}
    state = next((one for one in _WORST if one in states), State.UNASSIGNED)
    speaker = next((report for report in fresh if report.state is state and report.reason), None)
    reason = speaker.reason if speaker is not None else None
    if not fresh:
        reason = "no worker has reported it lately" if reports else "no worker has run it yet"
    return PipelineStatus(
        pipeline=name,
        kind=kind,
        state=state,
        since=min((report.since for report in fresh if report.state is state), default=None),
        workers=len([report for report in fresh if report.state not in {State.STOPPED, State.UNASSIGNED}]),
        reason=reason,
        hint=speaker.hint if speaker is not None else None,
        cause=speaker.cause if speaker is not None else None,
        finished=any(report.finished for report in fresh),
        counts=counts,
        open=left_open,
        lag_records=lag.records if lag is not None else None,
        lag_exact=lag.exact if lag is not None else True,
        lag_seconds=lag.seconds if lag is not None else None,
        lag_unknown=lag.unknown if lag is not None else (),
        parked_records=sum(report.parked_records for report in fresh),
        parked_keys=sum(report.parked_keys for report in fresh),
        breaker=next((word for word in _BREAKERS if any(report.breaker == word for report in fresh)), ""),
        per_second=sum(report.per_second for report in fresh),
        progress=[one for report in fresh for one in report.progress],
        restart_at=min((report.restart_at for report in fresh if report.restart_at is not None), default=None),
    )


def committed_ledgers(
    names: Names, commits: Mapping[str, Mapping[Partition, tuple[int, Ledger]]]
) -> dict[str, tuple[dict[str, int], int]]:
    """Counts, and how many records they can't account for, of the ledgers in the groups' commits.

    What came again through the retry topic has a ledger of its own and is not counted twice: of it `dead_again` failed again.
    """
    found = {}
    for name, parts in commits.items():
        ledgers = [(topic == names.retry(name), ledger) for (topic, _), (_, ledger) in parts.items()]
        if ledgers:
            summed = total(ledger for again, ledger in ledgers if not again)
            counts = {one: getattr(summed, one) for one in ("read", *OUTCOMES, "outputs")}
            counts["dead_again"] = sum(ledger.dead for again, ledger in ledgers if again)
            found[name] = (counts, summed.open)
    return found


def _source_counts(kafka: KafkaSettings, names: Names) -> dict[str, tuple[dict[str, int], int]]:
    found: dict[str, dict[str, int]] = {}
    for (pipeline, _), position in read_positions(kafka, names).items():
        counts = found.setdefault(pipeline, {})
        for name in ("read", "delivered", "filtered", "dead", "outputs", "duplicates"):
            counts[name] = counts.get(name, 0) + getattr(position, name)
    return {
        name: (counts, counts["read"] - counts["delivered"] - counts["filtered"] - counts["dead"])
        for name, counts in found.items()
    }
