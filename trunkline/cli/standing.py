"""How pipelines stand, put together from what workers report, what groups committed and what is applied."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trunkline.bus.accounting.commits import all_committed, positions_of
from trunkline.bus.accounting.lag import LagReader, PartitionLag
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.ledger import OUTCOMES, Ledger, total
from trunkline.bus.names import Names
from trunkline.bus.redrive.jobs import JobLog
from trunkline.bus.source.positions import read_positions
from trunkline.bus.states import State
from trunkline.bus.worker.applied import read_applied
from trunkline.bus.worker.board import Board, Report
from trunkline.cli.session import Session
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.manifests.kinds import PIPELINE_KINDS

STATUS_COLUMNS = (
    "PIPELINE",
    "KIND",
    "STATE",
    "FOR",
    "WORKERS",
    "READ",
    "DELIVERED",
    "ABSORBED",
    "FILTERED",
    "PARKED",
    "DEAD",
    "DEAD AGAIN",
    "REDRIVEN",
    "WAITING",
    "LAG",
    "LAG s",
    "LEDGER",
    "PROGRESS",
)
_WHERE_ANY = {"ABSORBED", "PARKED", "DEAD AGAIN"}
"""Columns that stand only in a table where some pipeline has any: few do."""
_WORST = (State.FAILED, State.RESTARTING, State.RUNNING, State.PAUSED, State.STOPPED, State.UNASSIGNED)
"""What one word says of several workers: the first of these that any of them is in."""
_HELD_BACK = ("open", "half-open")
_BREAKERS = (*_HELD_BACK, "closed")


@dataclass(frozen=True, slots=True)
class Standing:
    """One pipeline. `since` is in Unix seconds, `lag_seconds` None where it is not known; the ledger closes when `open` is 0.

    Of all that became dead letters, also what failed again after a redrive, `redriven` were sent again and `dead_waiting` were not.
    """

    pipeline: str
    kind: str
    state: State
    since: float | None
    workers: int
    reason: str | None = None
    hint: str | None = None
    finished: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    open: int = 0
    lag_records: int = 0
    lag_seconds: float | None = None
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
        """How long what is there takes at the present pace, if nothing more came; None where nobody can tell."""
        if self.kind == "Source":
            known = [one["seconds_left"] for one in self.progress]
            return max(known) if known and None not in known else None
        if not self.lag_records:
            return 0.0
        return self.lag_records / self.per_second if self.per_second > 0 else None

    @property
    def progress_text(self) -> str | None:
        """Such as `42 % of orders.csv, 3m left`; of a reader its pace and what is left."""
        left = self.seconds_left
        rest = f", {elapsed(left)} left" if left else ""
        if self.kind == "Source":
            if not self.progress:
                return None
            first = min(self.progress, key=lambda one: float(one["done"] / one["total"]) if one["total"] else 1.0)
            done = sum(one["done"] for one in self.progress)
            total = sum(one["total"] for one in self.progress)
            others = f" and {len(self.progress) - 1} more" if len(self.progress) > 1 else ""
            # Rounded down: nothing is all read before it is.
            return f"{int(100 * done / total) if total else 100} % of {first['what']}{others}{rest}"
        return f"{self.per_second:,.0f}/s{rest}" if self.per_second >= 1 and self.lag_records else None

    def row(self) -> tuple[Any, ...]:
        """The cells under STATUS_COLUMNS.

        What was read is the sum of the classes behind it and of what the ledger has open. The dead letters of both kinds are the sum of
        those that were sent again and those that wait.
        """
        counts = [self.counts.get(name) for name in ("read", "delivered", "absorbed", "filtered", "parked", "dead")]
        lag = (None, None) if self.kind == "Source" else (self.lag_records, self.lag_seconds)
        ledger = None if not self.counts else ("closes" if self.open == 0 else f"{self.open} open")
        age = None if self.since is None else elapsed(time.time() - self.since)
        state = f"{self.state} (finished)" if self.finished else str(self.state)
        again = self.counts.get("dead_again")
        letters = (again, self.redriven, self.dead_waiting) if self.counts else (None, None, None)
        if self.breaker in _HELD_BACK:
            state += f" (breaker {self.breaker})"
        if self.parked_records:
            state += f" ({self.parked_records} parked)"
        head = (self.pipeline, self.kind, state, age, self.workers)
        return (*head, *counts, *letters, *lag, ledger, self.progress_text)

    def as_dict(self) -> dict[str, Any]:
        """The standing as data."""
        return {**asdict(self), "ledger_closes": self.open == 0, "seconds_left": self.seconds_left}


def status_table(found: Sequence[Standing]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows: STATUS_COLUMNS without those that say nothing of any pipeline."""
    rows = [one.row() for one in found]
    kept = [
        index
        for index, column in enumerate(STATUS_COLUMNS)
        if column not in _WHERE_ANY or any(row[index] for row in rows)
    ]
    return [STATUS_COLUMNS[index] for index in kept], [tuple(row[index] for index in kept) for row in rows]


def elapsed(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = int(max(seconds, 0))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2])


def known_pipelines(session: Session, kafka: KafkaSettings, names: Names, only: str | None = None) -> dict[str, str]:
    """Kinds by name of the pipelines that are applied or were reported. Raises `ConfigurationError` when `only` is none of them."""
    kinds = {report.pipeline: report.kind for report in Board(kafka, names).reports()}
    return _chosen(kinds, applied_pipelines(kafka, names), only)


def applied_pipelines(kafka: KafkaSettings, names: Names) -> dict[str, str]:
    """Kinds by name of the applied pipelines."""
    found = (key.split("/", 1) for key in read_applied(kafka, names))
    return {name: kind for kind, name in found if kind in PIPELINE_KINDS}


def _chosen(reported: Mapping[str, str], applied: Mapping[str, str], only: str | None) -> dict[str, str]:
    kinds = dict(sorted({**reported, **applied}.items()))
    if only is None:
        return kinds
    if only not in kinds:
        raise ConfigurationError(
            f"no pipeline is called {only!r}", hint=did_you_mean(only, kinds), code="pipeline.unknown"
        )
    return {only: kinds[only]}


def standings(session: Session, only: str | None = None) -> list[Standing]:
    """How each pipeline stands. Counts are those of commits and positions, which are as true as the offsets."""
    kafka, names = session.kafka(), session.names()
    reports = Board(kafka, names).reports()
    kinds = _chosen({report.pipeline: report.kind for report in reports}, applied_pipelines(kafka, names), only)
    readers = [name for name, kind in kinds.items() if kind != "Source"]
    commits = all_committed(kafka, names, readers)
    ledgers = committed_ledgers(names, commits)
    lags = LagReader(kafka).measure({name: positions_of(found) for name, found in commits.items()})
    sources = _source_counts(kafka, names)
    redriven = JobLog.read(kafka, names, patient=False).redriven
    found = []
    for name, kind in kinds.items():
        counts, left_open = sources.get(name, ({}, 0)) if kind == "Source" else ledgers.get(name, ({}, 0))
        own = [report for report in reports if report.pipeline == name]
        standing = _standing(name, kind, own, counts, left_open, [lag for lag in lags if lag.pipeline == name])
        dead = counts.get("dead", 0) + counts.get("dead_again", 0)
        sent = redriven.get(name, 0)
        found.append(replace(standing, redriven=sent, dead_waiting=max(0, dead - sent)))
    return found


def _standing(
    name: str,
    kind: str,
    reports: Sequence[Report],
    counts: dict[str, int],
    left_open: int,
    lags: Sequence[PartitionLag],
) -> Standing:
    fresh = [report for report in reports if not report.stale]
    states = {report.state for report in fresh}
    state = next((one for one in _WORST if one in states), State.UNASSIGNED)
    speaker = next((report for report in fresh if report.state is state and report.reason), None)
    reason = speaker.reason if speaker is not None else next((one.waiting for one in fresh if one.waiting), None)
    if not fresh:
        reason = "no worker has reported it lately" if reports else "no worker has run it yet"
    seconds = [lag.seconds for lag in lags if lag.seconds is not None]
    return Standing(
        pipeline=name,
        kind=kind,
        state=state,
        since=min((report.since for report in fresh if report.state is state), default=None),
        workers=len([report for report in fresh if report.state not in {State.STOPPED, State.UNASSIGNED}]),
        reason=reason,
        hint=speaker.hint if speaker is not None else None,
        finished=any(report.finished for report in fresh),
        counts=counts,
        open=left_open,
        lag_records=sum(lag.records for lag in lags if lag.seconds != 0.0),
        lag_seconds=max(seconds, default=None),
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
