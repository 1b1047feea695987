"""Where pipelines stand in their inputs, and changing that while nobody runs them: worked out and shown first, then carried out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from confluent_kafka import TopicPartition

from trunkline.bus.accounting.commits import committed
from trunkline.bus.accounting.counting import count_between
from trunkline.bus.accounting.inputs import inputs_of
from trunkline.bus.accounting.moves import Move, Stand, Target, gap, move, ranges
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import EARLIEST, LATEST, closing, offsets_of, patiently
from trunkline.bus.ledger import Ledger
from trunkline.bus.topics import topic_identities
from trunkline.bus.worker.reported import reported_offsets
from trunkline.bus.worker.unattended import change_unattended
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, ConflictError, did_you_mean

TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """One input partition: the committed offset with its ledger's epoch, and the second copy that workers reported; None where there is
    none. `fault` says what is wrong with the commit, empty where nothing is."""

    topic: str
    partition: int
    committed: int | None
    saved: int | None
    epoch: int | None
    fault: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The offsets as data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class OffsetsPlan:
    """What setting a pipeline's offsets does. `redriven` says that its retry topic is among what moves; `left` are partitions of it
    that hold records and stay as they are, because nobody named them."""

    pipeline: str
    target: Target
    moves: tuple[Move, ...]
    redriven: bool
    left: tuple[Partition, ...]

    @property
    def again(self) -> int:
        """Records that are read, and so delivered or written, once more."""
        return sum(one.again for one in self.moves)

    @property
    def skipped(self) -> int:
        """Records that are never read."""
        return sum(one.skipped for one in self.moves)

    @property
    def exact(self) -> bool:
        """Whether those are counts of records, and not of offsets."""
        return all(one.exact for one in self.moves)

    def as_dict(self) -> dict[str, Any]:
        """The plan as data."""
        return {
            "pipeline": self.pipeline,
            "to": self.target.isoformat() if isinstance(self.target, datetime) else self.target,
            "partitions": [one.as_dict() for one in self.moves],
            "again": self.again,
            "skipped": self.skipped,
            "exact": self.exact,
            "redriven": self.redriven,
            "left": [{"topic": topic, "partition": partition} for topic, partition in self.left],
        }


def of_pipeline(cluster: Cluster, pipeline: str) -> list[PartitionOffsets]:
    """The offsets of every partition. Raises `ConfigurationError` for an unknown pipeline."""
    pipelines.known(cluster, pipeline)
    return [_shown(stand) for stand in _stands(cluster, pipeline)]


def plan(
    cluster: Cluster,
    pipeline: str,
    target: Target,
    *,
    topics: Collection[str] = (),
    partitions: Collection[int] = (),
) -> OffsetsPlan:
    """Works out what a change does, and counts records. Nothing is changed.

    Without `topics` all inputs are meant but the retry topic, whose records a redrive sent: they are read again only where it is named.
    Raises `ConfigurationError`: for an unknown pipeline, topic or partition, for an offset that a partition does not have, and
    where there is nothing to change (`offsets.none`).
    """
    pipelines.known(cluster, pipeline)
    retry = cluster.names.retry(pipeline)
    stands = _stands(cluster, pipeline, target if isinstance(target, datetime) else None)
    chosen = _chosen(pipeline, retry, stands, topics, partitions)
    if isinstance(target, int) and len(chosen) != 1:
        raise ConfigurationError("an offset is of one partition", hint="name it with --topic and --partition")
    found = [(stand, moved) for stand in chosen if (moved := move(stand, target)) is not None]
    if not found:
        raise _nothing(pipeline, target, chosen)
    for stand, moved in found:
        _check_range(stand, moved)
    moves = tuple(_counted(cluster, stand, moved) for stand, moved in found)
    left = (
        () if topics else tuple(stand.place for stand in stands if stand.place[0] == retry and stand.end > stand.first)
    )
    return OffsetsPlan(pipeline, target, moves, any(one.topic == retry for one in moves), left)


def carry_out(cluster: Cluster, planned: OffsetsPlan) -> None:
    """Does what was planned, with an audit entry; a pipeline that is not wanted to be stopped is restarted.

    Raises `ConfigurationError` (`offsets.in_use`) while a worker runs it, and `ConflictError` where offsets have moved since.
    """
    cluster.ensure_internal_topics()
    before = {one.place: one.committed for one in planned.moves}

    def still() -> None:
        now = committed(cluster.kafka, cluster.names, planned.pipeline, list(before))
        moved = {place: now[place][0] if place in now else None for place in before}
        if moved != before:
            raise _conflict(planned.pipeline, before, moved)

    change_unattended(
        cluster.kafka,
        cluster.names,
        planned.pipeline,
        "offsets.adopt" if planned.target == "adopt" else "offsets.set",
        by=cluster.actor,
        details=planned.as_dict(),
        still=still,
        offsets=[TopicPartition(*one.place, *one.commit()) for one in planned.moves],
    )


# --- what there is ---


def _stands(cluster: Cluster, pipeline: str, moment: datetime | None = None) -> list[Stand]:
    """Where a pipeline stands in each partition that it reads, of topics that exist."""
    kafka, names = cluster.kafka, cluster.names
    commits = committed(kafka, names, pipeline)
    known = reported_offsets(cluster.board.reports()).get(pipeline, {})
    reads = {name: topics for name, topics in pipelines.inputs(cluster).items() if name == pipeline}
    inputs = inputs_of(kafka, names, reads).get(pipeline)
    places = {*commits, *known, *(inputs.partitions if inputs is not None else ())}
    identities = topic_identities(kafka, {topic for topic, _ in places})
    # A pipeline reads its topics whole, whatever is known of a partition.
    there = [(topic, number) for topic, one in sorted(identities.items()) for number in range(one.partitions)]
    firsts, ends = offsets_of(kafka, there, [EARLIEST, LATEST], "the offsets can't be asked for", TIMEOUT)
    times = _at(cluster, there, moment) if moment is not None else {}
    found = []
    for place in there:
        offset, ledger = commits.get(place, (None, Ledger()))
        stand = Stand(place, identities[place[0]].id, firsts[place], ends[place], offset, ledger, known.get(place, {}))
        found.append(replace(stand, at=times.get(place)))
    return found


def _at(cluster: Cluster, places: Sequence[Partition], moment: datetime) -> Mapping[Partition, int]:
    """The first offset of each partition whose record is not older; of a partition that has none it is left out."""
    asked = [TopicPartition(*place, int(moment.timestamp() * 1000)) for place in places]
    with closing(cluster.kafka.reader()) as reader:
        found = patiently(lambda: reader.offsets_for_times(asked, timeout=TIMEOUT), "a time can't be looked for")
    return {(part.topic, part.partition): part.offset for part in found if part.offset >= 0}


def _shown(stand: Stand) -> PartitionOffsets:
    epoch = stand.ledger.epoch if stand.committed is not None else None
    former = stand.former
    fault = ""
    if former is not None:
        fault = f"the topic was made anew: {former[1]} is of the one with the id {former[0]}"
    elif stand.position is None and stand.saved is not None:
        fault = "the commit is gone"
    elif gap(stand):
        fault = f"{gap(stand)} were deleted unread: the first is {stand.first} now"
    elif stand.position is not None and stand.position > stand.end:
        fault = f"the partition ends at {stand.end}"
    return PartitionOffsets(*stand.place, stand.committed, stand.saved, epoch, fault)


# --- what is meant ---


def _chosen(
    pipeline: str, retry: str, stands: Sequence[Stand], topics: Collection[str], partitions: Collection[int]
) -> list[Stand]:
    """The partitions that are meant. Raises `ConfigurationError` for one that the pipeline does not read."""
    known = list(dict.fromkeys(stand.place[0] for stand in stands))
    for topic in topics:
        if topic not in known:
            raise ConfigurationError(
                f"{pipeline} reads no topic {topic!r}",
                where="--topic",
                hint=did_you_mean(topic, known),
                code="offsets.topic",
            )
    meant = [topic for topic in known if topic in topics or (not topics and topic != retry)]
    if partitions and len(meant) > 1:
        raise ConfigurationError(
            f"{pipeline} reads {len(meant)} topics",
            where="--partition",
            hint=f"name one with --topic: {', '.join(meant)}",
        )
    chosen = [stand for stand in stands if stand.place[0] in meant]
    for number in partitions:
        if all(stand.place[1] != number for stand in chosen):
            raise ConfigurationError(
                f"{', '.join(meant)} has no partition {number}", where="--partition", code="offsets.partition"
            )
    return [stand for stand in chosen if not partitions or stand.place[1] in partitions]


def _nothing(pipeline: str, target: Target, chosen: Sequence[Stand]) -> ConfigurationError:
    if not chosen:
        return ConfigurationError(
            f"{pipeline} has read nothing", hint="its manifest's `start` says where it begins", code="offsets.none"
        )
    reasons = {
        "saved": "no commit is gone of which a worker reported the offset in this topic",
        "after-gap": "no partition has records that were deleted before they were read",
        "adopt": "no topic was made anew since it was read",
    }
    reason = (
        reasons.get(target, "every partition stands there already")
        if isinstance(target, str)
        else "it stands there already"
    )
    return ConfigurationError(
        f"nothing is to be done: {reason}",
        where=pipeline,
        hint=f"`trunkline offsets show {pipeline}` shows where it stands",
        code="offsets.none",
    )


def _check_range(stand: Stand, moved: Move) -> None:
    if not stand.first <= moved.offset <= stand.end:
        topic, number = stand.place
        raise ConfigurationError(
            f"{topic}[{number}] has the offsets {stand.first} to {stand.end}, and not {moved.offset}",
            hint="choose earliest, latest or a time for this partition",
            code="offsets.out_of_range",
        )


def _counted(cluster: Cluster, stand: Stand, moved: Move) -> Move:
    passed = ranges(stand, moved)
    with closing(cluster.kafka.reader(eof=True)) as reader:
        again, one = count_between(reader, stand.place, *passed.again)
        skipped, other = count_between(reader, stand.place, *passed.skipped)
    return replace(moved, again=again, skipped=skipped, exact=one and other)


def _conflict(
    pipeline: str, before: Mapping[Partition, int | None], now: Mapping[Partition, int | None]
) -> ConflictError:
    moved = [(place, before[place], now[place]) for place in before if before[place] != now[place]]
    return ConflictError(
        f"the offsets of {pipeline} moved since they were looked at: "
        + ", ".join(f"{topic}[{number}] was {was}, is {is_}" for (topic, number), was, is_ in moved),
        moved=[{"topic": topic, "partition": number, "old": was, "new": is_} for (topic, number), was, is_ in moved],
        hint="look at them as they are now, and ask again; nothing was changed",
    )
