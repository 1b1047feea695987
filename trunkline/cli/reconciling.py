"""Reconciling for people: each partition with what does not agree, progress beside it, and how much is parked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trunkline.bus.accounting.reconcile import OnProgress, PartitionCheck, parked_now, reconcile
from trunkline.cli.output import console
from trunkline.cli.session import Session
from trunkline.control import pipelines
from trunkline.core.errors import CheckFailedError, ConfigurationError

RECONCILE_COLUMNS = (
    "TOPIC",
    "PARTITION",
    "FIRST",
    "COMMITTED",
    "READ",
    "PRESENT",
    "AGREES",
    "PROBLEM",
    "MISSING",
    "EXTRA",
)


def compare(session: Session, pipeline: str) -> list[PartitionCheck]:
    """The checks of every partition. Raises `ConfigurationError` for a source."""
    kafka, names = session.kafka(), session.names()
    if pipelines.known(session.cluster(kafka), pipeline).get(pipeline) == "Source":
        raise ConfigurationError(
            f"{pipeline} is a source: what it reads is no topic that could be read again",
            hint="`trunkline status` shows what it read, delivered and kept in quarantine",
            code="reconcile.source",
        )
    with _progress(session) as on_progress:
        checks = reconcile(kafka, names, pipeline, on_progress=on_progress)
    parked = parked_now(kafka, names.parked(pipeline))
    if parked:
        session.out.note(f"{parked} records are parked now: their keys wait until they are settled")
    return checks


def row(check: PartitionCheck) -> tuple[Any, ...]:
    """The cells under RECONCILE_COLUMNS."""
    agrees: Any = check.closes
    if check.closes and check.unverifiable:
        agrees = "unverifiable"
    unnamed = f"and {check.unnamed} older than the trace" if check.unnamed else ""
    return (
        check.topic,
        check.partition,
        check.first,
        check.committed,
        check.read,
        check.present,
        agrees,
        check.problem,
        " ".join([*map(str, check.missing), unnamed]).strip() or None,
        " ".join(map(str, check.extra)) or None,
    )


def judge(pipeline: str, checks: list[PartitionCheck]) -> None:
    """Raises `CheckFailedError` (`ledger.differs`) where a partition does not agree with its ledger."""
    wrong = [one for one in checks if not one.closes]
    if wrong:
        raise CheckFailedError(
            f"{len(wrong)} of {len(checks)} partitions do not agree with their ledger",
            where=pipeline,
            hint="docs/runbooks/ledger-does-not-close.md says what to do",
            code="ledger.differs",
        )


@contextmanager
def _progress(session: Session) -> Iterator[OnProgress | None]:
    screen = console(sys.stderr)
    if not screen.is_terminal or not session.out.for_people:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as bar:
        task = bar.add_task("Reading again", total=None)

        def show(topic: str, partition: int, done: int, total: int) -> None:
            bar.update(task, description=f"{topic}[{partition}]", completed=done, total=total)

        yield show
