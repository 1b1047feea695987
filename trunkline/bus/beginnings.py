"""Where a pipeline begins in each partition that comes to it: at its commit, and in one that it never read where its manifest says.

No position is ever chosen silently. A commit that is gone, that is of a topic which was made anew, or whose records are no longer
there is an error that names the place, and what a person can do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from trunkline.bus.commitfaults import CommitFault, error_of
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, offsets_of, translate, watermarks
from trunkline.bus.knownoffsets import Copy, KnownOffsets, Reached, merged
from trunkline.bus.ledger import Ledger, Plan
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicIdentity, topic_identities
from trunkline.core.errors import FatalError, RetriableError, TrunklineError
from trunkline.core.log import get_logger

Partition = tuple[str, int]
"""Topic and partition number."""

log = get_logger(__name__)
CALL_TIMEOUT = 15.0
YOUNG_SECONDS = 30.0
"""A pipeline that never ran before has nothing that others could have reported, if its first partitions come so soon."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """A partition that came to this member: it reads from `position`, and the ledger goes on from there."""

    partition: Partition
    position: int
    ledger: Ledger
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pipeline reads, as whom, and from where.

    `topics` are names, or families that end in `.*`; the pipeline's retry topic comes on top. `started_at` is when the pipeline
    ran first (Unix seconds), None for now. `topic_ids` has the ids that the pipeline was built for; topics that it had not heard of
    are added when their first partition comes. `known` is the second copy of its offsets on this worker, `reported` asks for what
    all workers reported by now.
    """

    settings: KafkaSettings
    names: Names
    pipeline: str
    topics: Sequence[str]
    start: str | datetime
    worker: str
    started_at: float | None = None
    topic_ids: dict[str, str] = field(default_factory=dict)
    known: KnownOffsets = field(default_factory=KnownOffsets)
    reported: Callable[[], Copy] = dict

    @property
    def retry(self) -> str:
        """The topic through which its dead letters come again."""
        return self.names.retry(self.pipeline)


class Beginnings:
    """Finds positions for a member of a pipeline's group, on its polling thread."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._settings = reading.settings
        self._admin = reading.settings.admin()  # kept, so that each question is given this one
        self._made_at = time.monotonic()
        self._started_at = reading.started_at if reading.started_at is not None else time.time()
        self._first_run = reading.started_at is None
        self._assigned_ids: dict[str, str] = {}
        """The ids of the topics that this member has had partitions of."""
        self._reported: Copy | None = None

    def of(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> list[Assigned]:
        """Committed positions, and for partitions never read the manifest's start, committed at once.

        From then on there always is a commit, and `auto.offset.reset=error` tells when it is lost. Raises our error.
        """
        self._reported = None
        identities = self._identities({part.topic for part in partitions})
        found, adopted, new, faults = [], [], [], []
        for part, ledger, plan in self._committed(consumer, partitions):
            place, topic_id = (part.topic, part.partition), identities[part.topic].id
            fault = self._fault(place, topic_id, part.offset, ledger)
            if fault is not None:
                faults.append(fault)
            elif part.offset < 0:
                new.append(place)
            else:
                if not ledger.topic_id:
                    ledger.topic_id = topic_id
                    adopted.append(Assigned(place, part.offset, ledger, plan))
                found.append(Assigned(place, part.offset, ledger, plan))
        if faults:
            # A topic of which nothing was read is begun like any other that is new.
            unread = {one.place for one in faults if one.kind == "made_anew" and self._was_unread(consumer, one)}
            if len(unread) < len(faults):
                raise self._error(consumer, [one for one in faults if one.place not in unread])
            new += unread
        self._learn(identities)
        begun = [
            Assigned(place, offset, Ledger(first=offset, topic_id=identities[place[0]].id), None)
            for place, offset in self._starts(consumer, new).items()
        ]
        self._commit(consumer, begun, adopted)
        found += begun
        for one in found:
            self._reading.known.note(one.partition, one.position, one.ledger)
        self._first_run = False
        return found

    def changed(self, topics: Iterable[str], *, timeout: float = CALL_TIMEOUT) -> set[str]:
        """Those of these topics that are gone, or are no longer what this member was assigned. Raises our error for Kafka's."""
        asked = set(topics) & self._assigned_ids.keys()
        there = topic_identities(self._settings, asked, admin=self._admin, timeout=timeout)
        return {topic for topic in asked if topic not in there or there[topic].id != self._assigned_ids[topic]}

    def error_for(self, consumer: Consumer, read_to: Mapping[Partition, int]) -> TrunklineError:
        """Why this member can't go on: with its topics, or with the positions up to which it has read.

        A `RetriableError` where nothing is wrong by now.
        """
        topics = {topic for topic, _ in read_to}
        try:
            identities = self._identities(topics)
        except TrunklineError as error:
            return error
        anew = [place for place in read_to if self._assigned_ids.get(place[0], "") not in {"", identities[place[0]].id}]
        if anew:
            made_anew = self._made_anew(consumer, anew, identities)
            if all(self._was_unread(consumer, one) for one in made_anew):
                names = ", ".join(sorted({one.place[0] for one in made_anew}))
                return RetriableError(
                    f"{names} was made anew, and nothing was read of the former one", code="topic.made_anew"
                )
            return self._error(consumer, made_anew)
        faults = []
        firsts, ends = self._ranges(read_to)
        for place, position in read_to.items():
            if position < firsts.get(place, 0):
                faults.append(CommitFault("expired", place, position, first=firsts[place], end=ends.get(place)))
            elif position > ends.get(place, position):
                faults.append(CommitFault("beyond", place, position, first=firsts.get(place), end=ends[place]))
        if not faults:
            return RetriableError(
                f"Kafka refused a position of {self._reading.pipeline} that it has", code="offsets.moved"
            )
        return error_of(self._reading.pipeline, self._reading.retry, faults)

    def _made_anew(
        self, consumer: Consumer, places: Sequence[Partition], identities: Mapping[str, TopicIdentity]
    ) -> list[CommitFault]:
        """The faults of partitions whose topic was made anew since they were assigned, with what was committed of the old one."""
        commits = {
            (part.topic, part.partition): part.offset
            for part, ledger, _ in self._committed(consumer, [TopicPartition(*place) for place in places])
            if part.offset >= 0 and ledger.topic_id == self._assigned_ids[part.topic]
        }
        faults = []
        for place in places:
            old_id = self._assigned_ids[place[0]]
            known = self._reading.known.of(place).get(old_id)
            offset = commits.get(place, known.offset if known is not None else 0)
            faults.append(CommitFault("made_anew", place, offset, old_id, identities[place[0]].id))
        return faults

    # --- commits ---

    def _committed(
        self, consumer: Consumer, partitions: Iterable[TopicPartition]
    ) -> list[tuple[TopicPartition, Ledger, Plan | None]]:
        try:
            committed = consumer.committed(
                [TopicPartition(part.topic, part.partition) for part in partitions], timeout=CALL_TIMEOUT
            )
        except KafkaException as error:
            raise translate(error, "the committed offsets can't be read") from error
        for part in committed:
            if part.error is not None:
                raise translate(part.error, f"the commit of {part.topic}[{part.partition}] can't be read")
        return [(part, *Ledger.from_metadata(part.metadata, max(part.offset, 0))) for part in committed]

    def _fault(self, place: Partition, topic_id: str, offset: int, ledger: Ledger) -> CommitFault | None:
        """What is wrong with a commit; with an `offset` below 0 there is none."""
        # I31: an offset counts only in the topic that it was committed in.
        if offset >= 0:
            return (
                None
                if ledger.topic_id in {"", topic_id}
                else CommitFault("made_anew", place, offset, ledger.topic_id, topic_id)
            )
        known = self._known(place)
        if not known:
            return None
        # `start` is for the first time: applied again it would repeat a topic's history, or skip what has come since.
        for same in (topic_id, ""):
            if same in known:
                return CommitFault("missing", place, known[same].offset, same, topic_id)
        old_id, reached = list(known.items())[-1]
        return CommitFault("made_anew", place, reached.offset, old_id, topic_id)

    def _known(self, place: Partition) -> Mapping[str, Reached]:
        """The second copy, in which others may have had the partition since this worker last asked."""
        known = self._reading.known.of(place)
        if known or (self._first_run and time.monotonic() - self._made_at < YOUNG_SECONDS):
            return known
        if self._reported is None:
            self._reported = self._reading.reported()
        return self._reported.get(place, {})

    def _was_unread(self, consumer: Consumer, fault: CommitFault) -> bool:
        """Whether nobody is known to have read anything of the former topic, in any of its partitions."""
        if fault.offset:
            return False
        known = merged([self._reading.reported(), self._reading.known.copy])
        places = [place for place in known if place[0] == fault.place[0]]
        if any(known[place].get(fault.old_id, Reached(1, 0)).offset for place in places):
            return False
        committed = self._committed(consumer, [TopicPartition(*place) for place in places])
        return not any(part.offset > 0 for part, ledger, _ in committed if ledger.topic_id == fault.old_id)

    def _commit(self, consumer: Consumer, begun: Sequence[Assigned], adopted: Sequence[Assigned]) -> None:
        for one in adopted:
            log.warning(
                "a commit does not say which topic it was made in: it is taken for one of this topic",
                pipeline=self._reading.pipeline,
                topic=one.partition[0],
                partition=one.partition[1],
                offset=one.position,
                topic_id=one.ledger.topic_id,
            )
        commits = [
            TopicPartition(*one.partition, one.position, one.ledger.to_metadata(one.plan)) for one in [*begun, *adopted]
        ]
        if commits:
            try:
                self._settings.commit(consumer, commits)
            except KafkaException as error:
                raise translate(error, "the first offsets can't be committed") from error

    def _error(self, consumer: Consumer, faults: Sequence[CommitFault]) -> FatalError:
        """The error for these faults, and for what is wrong with the pipeline's other partitions: a person is told all of it at once."""
        reading = self._reading
        others = {topic for topic in reading.topics if not topic.endswith(".*")} | {reading.retry}
        identities = topic_identities(self._settings, {*others, *(one.place[0] for one in faults)}, admin=self._admin)
        told = {one.place: one for one in faults}
        places = [
            TopicPartition(topic, number)
            for topic, identity in sorted(identities.items())
            for number in range(identity.partitions)
            if (topic, number) not in told
        ]
        for part, ledger, _ in self._committed(consumer, places):
            place = (part.topic, part.partition)
            fault = self._fault(place, identities[part.topic].id, part.offset, ledger)
            if fault is not None:
                told[place] = fault
        there = {topic: identity.partitions for topic, identity in identities.items()}
        firsts, ends = self._ranges(place for place in told if place[1] < there.get(place[0], 0))
        whole = [
            CommitFault(
                one.kind, one.place, one.offset, one.old_id, one.topic_id, firsts.get(one.place), ends.get(one.place)
            )
            for one in told.values()
        ]
        return error_of(reading.pipeline, reading.retry, whole)

    # --- topics ---

    def _identities(self, topics: Iterable[str]) -> Mapping[str, TopicIdentity]:
        asked = set(topics)
        found = topic_identities(self._settings, asked, admin=self._admin, timeout=CALL_TIMEOUT)
        gone = sorted(asked - found.keys())
        if gone:
            raise missing_topics(self._reading.pipeline, gone)
        return found

    def _learn(self, identities: Mapping[str, TopicIdentity]) -> None:
        """Notes the topics. Raises `RetriableError` where the pipeline was built for another one of the same name."""
        for topic, identity in identities.items():
            built_for = self._reading.topic_ids.setdefault(topic, identity.id)
            if built_for != identity.id:
                raise RetriableError(
                    f"the topic {topic} was made anew while {self._reading.pipeline} began", code="topic.made_anew"
                )
            self._assigned_ids[topic] = identity.id

    def _ranges(self, places: Iterable[Partition]) -> tuple[Mapping[Partition, int], Mapping[Partition, int]]:
        firsts, ends = offsets_of(self._settings, places, [EARLIEST, LATEST], "the offsets can't be asked for")
        return firsts, ends

    # --- the first time ---

    def _starts(self, consumer: Consumer, places: Iterable[Partition]) -> Mapping[Partition, int]:
        starts: dict[Partition, int] = {}
        start = self._reading.start
        for topic, number in places:
            low, high = watermarks(consumer, topic, number, CALL_TIMEOUT)
            if topic == self._reading.retry or start == "earliest":
                starts[topic, number] = low
                continue
            if start == "latest" and self._first_run:
                starts[topic, number] = high
                continue
            # `latest` means the moment when the pipeline first ran: a partition or a topic that appears later is read whole.
            moment = start.timestamp() if isinstance(start, datetime) else self._started_at
            try:
                asked = TopicPartition(topic, number, int(moment * 1000))
                answer = consumer.offsets_for_times([asked], timeout=CALL_TIMEOUT)[0]
            except KafkaException as error:
                raise translate(error, f"the offset of a time in {topic}[{number}] can't be found") from error
            starts[topic, number] = answer.offset if answer.offset not in {OFFSET_INVALID, -1} else high
        return starts


def missing_topics(pipeline: str, topics: Sequence[str]) -> FatalError:
    """The error for inputs of a pipeline that do not exist."""
    named = f"the topic {topics[0]} does" if len(topics) == 1 else f"the topics {', '.join(topics)} do"
    return FatalError(
        f"{named} not exist",
        hint=f"it goes on as soon as it exists; `trunkline restart {pipeline}` makes a topic that a manifest declares anew, an `external`"
        " one its owner must make",
        code="topic.missing",
    )
