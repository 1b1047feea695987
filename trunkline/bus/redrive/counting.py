"""What became of pipelines' records, put together: from ledgers and positions, from what waits to be read again, and from the letters
that wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trunkline.bus.accounting.commits import Commits, all_committed
from trunkline.bus.accounting.lag import PartitionLag
from trunkline.bus.accounting.lagreader import lags_behind
from trunkline.bus.accounting.outcomes import Outcomes, Waiting, of_reader, of_source
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.knownoffsets import Copy
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.redrive.jobs import JobLog
from trunkline.bus.redrive.waiting import COUNTED, Died, waiting_letters
from trunkline.bus.source.positions import SplitPosition, read_positions, summed


@dataclass(frozen=True, slots=True)
class Counted:
    """By pipeline: what became of its records, left out where nothing was read; its lag, but of sources; and how many of its dead letters
    were sent again until now."""

    outcomes: dict[str, Outcomes]
    lags: dict[str, list[PartitionLag]]
    redriven: dict[str, int]


def count(
    settings: KafkaSettings,
    names: Names,
    kinds: Mapping[str, str],
    reads: Mapping[str, Iterable[str]],
    known: Mapping[str, Copy],
    *,
    letters: int = COUNTED,
) -> Counted:
    """Counts what became of the records of pipelines, kinds by name. `reads` and `known` are as for `lags_behind`.

    Of at most so many `letters` those that wait are counted one by one. Raises our error for Kafka's.
    """
    found = _count(settings, names, kinds, reads, known, letters)
    # Letters that seem to be gone may have been sent again while everything was counted.
    doubted = {name: kinds[name] for name, one in found.outcomes.items() if one.carried < 0}
    if doubted:
        found.outcomes.update(_count(settings, names, doubted, reads, known, letters).outcomes)
    return found


def _count(
    settings: KafkaSettings,
    names: Names,
    kinds: Mapping[str, str],
    reads: Mapping[str, Iterable[str]],
    known: Mapping[str, Copy],
    letters: int,
) -> Counted:
    commits = all_committed(settings, names, [name for name, kind in kinds.items() if kind != "Source"])
    lags = lags_behind(settings, names, commits, reads, known)
    jobs = JobLog.read(settings, names, patient=False)
    redriven, dropped = jobs.redriven, jobs.dropped
    readers = {name: _Read.of(names, name, own, lags[name], redriven.get(name, 0)) for name, own in commits.items()}
    sources = {name: found for name, found in _source_counts(settings, names).items() if kinds.get(name) == "Source"}
    died = {
        name: read.died(commits[name], dropped.get(name, 0), atomic=kinds[name] == "Stream")
        for name, read in readers.items()
    }
    for name, counts in sources.items():
        settled = redriven.get(name, 0) + dropped.get(name, 0)
        died[name] = Died(counts["dead"], settled, whole=True, atomic=True, commits={})
    waiting = waiting_letters(settings, names, died, letters)
    outcomes = {
        name: of_reader(read.first, read.again, read.redriving, dropped.get(name, 0), waiting.get(name))
        for name, read in readers.items()
        if commits[name] or read.redriving or waiting.get(name) != Waiting()  # else nothing has happened
    }
    for name, counts in sources.items():
        outcomes[name] = of_source(counts, redriven.get(name, 0), dropped.get(name, 0), waiting.get(name))
    return Counted(outcomes, lags, redriven)


@dataclass(frozen=True, slots=True)
class _Read:
    """The ledgers of a pipeline's inputs and of its retry topic, and how many records wait there."""

    first: Sequence[Ledger]
    again: Sequence[Ledger]
    redriving: int

    @classmethod
    def of(cls, names: Names, pipeline: str, commits: Commits, lags: Sequence[PartitionLag], redriven: int) -> _Read:
        retry = names.retry(pipeline)
        again = [ledger for (topic, _), (_, ledger) in commits.items() if topic == retry]
        first = [ledger for (topic, _), (_, ledger) in commits.items() if topic != retry]
        counts = [lag.records for lag in lags if lag.topic == retry]
        # What is not known, as before anybody has begun to read it, is what was sent and not read.
        left = redriven - sum(ledger.read for ledger in again)
        known = [count for count in counts if count is not None]
        return cls(first, again, sum(known) if len(known) == len(counts) > 0 else max(0, left))

    def died(self, commits: Commits, dropped: int, *, atomic: bool) -> Died:
        """What the ledgers say of dead letters, of which so many were dropped."""
        ledgers = [*self.first, *self.again]
        letters, sent = sum(ledger.dead for ledger in ledgers), sum(ledger.read for ledger in self.again)
        return Died(letters, sent + self.redriving + dropped, all(one.epoch == 1 for one in ledgers), atomic, commits)


def _source_counts(settings: KafkaSettings, names: Names) -> dict[str, dict[str, int]]:
    splits: dict[str, list[SplitPosition]] = {}
    for (pipeline, _), position in read_positions(settings, names).items():
        splits.setdefault(pipeline, []).append(position)
    return {pipeline: summed(found) for pipeline, found in splits.items()}
