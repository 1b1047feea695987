"""The audit trail of a cluster, read: its records as they stand there, and its entries as people look at them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

from confluent_kafka import Consumer

from trunkline.bus.accounting.audit.chain import Recorded, Seal, UnreadableRecordError, parse, record_digest
from trunkline.bus.accounting.audit.entry import Entry
from trunkline.bus.accounting.audit.trail import Trail
from trunkline.bus.kafka import KafkaSettings, end_offsets, offset_of, read_all, read_range, watermarks
from trunkline.bus.names import Names
from trunkline.core.errors import RetriableError
from trunkline.core.log import get_logger

log = get_logger(__name__)
PARTITION = 0
"""The trail has one partition: the order of what is in several could not be sealed."""
STEP = 64
LOOK_SECONDS = 0.02


def place_of(topic: str, partition: int, offset: int) -> str:
    """A record's place as people read it."""
    return f"{topic}[{partition}]@{offset}"


def records(settings: KafkaSettings, names: Names, *, start: int | None = None) -> Generator[Recorded, None, None]:
    """The committed records of the trail in their order, all or from an offset on. Raises our error for Kafka's."""
    begin = None if start is None else lambda *_: start
    for message in read_all(settings, names.audit, start=begin):
        partition, offset = message.partition() or 0, offset_of(message)
        yield Recorded(place_of(names.audit, partition, offset), offset, message.key(), message.value(), partition)


def entries(
    settings: KafkaSettings, names: Names, pipeline: str | None = None, *, start: int | None = None
) -> Iterator[Entry]:
    """The trail's entries, oldest first; of one pipeline where named, and from the offset `start` on where given.

    A record that is no entry is told in the log and left out: `trunkline audit verify` names it. Raises `ConfigurationError`
    (`audit.version`) for entries of a newer version.
    """
    for record in records(settings, names, start=start):
        try:
            found = parse(record.value)
        except UnreadableRecordError as error:
            log.warning(
                "a record of the audit trail is no entry; `trunkline audit verify` says more",
                place=record.place,
                reason=str(error),
            )
            continue
        if not isinstance(found, Seal) and (pipeline is None or found.entry.pipeline == pipeline):
            yield found.entry


def read_tail(settings: KafkaSettings, reader: Consumer, names: Names, *, patience: float) -> Trail:
    """The trail from where its last seal ends, to go on sealing: all of it where there is none, or where offsets are others by now.

    `reader` tells of ends. Raises `RetriableError` (`audit.unsettled`) where a transaction is open for `patience` seconds: what stands
    behind it is not known, and may be a seal.
    """
    topic = names.audit
    end = _settled_end(settings, topic, patience)
    if end == 0:
        return Trail()
    first = watermarks(reader, topic, PARTITION)[0]
    read: list[Recorded] = []
    begin, step = end, STEP
    while begin > first:
        until, begin = begin, max(first, begin - step)
        read[:0] = _range(reader, topic, begin, until)
        step *= 8
        sealed = next((one for one in reversed(read) if isinstance(_parsed(one), Seal)), None)
        if sealed is not None:
            found = _behind(reader, topic, sealed, read, first)
            if found is not None:
                return found
            break
    trail = Trail()
    for one in [*(_range(reader, topic, first, begin) if begin > first else ()), *read]:
        trail.take(one)
    return trail


def _behind(reader: Consumer, topic: str, sealed: Recorded, read: list[Recorded], first: int) -> Trail | None:
    """The trail behind the last record that a seal covers, or None where that does not stand where the seal says."""
    seal = _parsed(sealed)
    assert isinstance(seal, Seal)
    assert sealed.value is not None
    trail = Trail.resumed(seal, sealed.value)
    since = first if seal.last is None else seal.last[0]
    if not first <= since <= sealed.offset:
        return None
    begin = read[0].offset
    known = [
        *(_range(reader, topic, since, begin) if since < begin else ()),
        *(one for one in read if one.offset >= since),
    ]
    if seal.last is not None:
        covered = known.pop(0)
        if covered.offset != since or record_digest(covered.key, covered.value) != seal.last[1]:
            return None
    for one in known:
        trail.take(one)
    return trail


def _settled_end(settings: KafkaSettings, topic: str, patience: float) -> int:
    end = end_offsets(settings, topic).get(PARTITION, 0)
    deadline = time.monotonic() + patience
    while end_offsets(settings, topic, committed_only=True).get(PARTITION, 0) < end:
        if time.monotonic() > deadline:
            raise RetriableError(
                f"a transaction that writes to {topic} is open for {patience:g} s", code="audit.unsettled"
            )
        time.sleep(LOOK_SECONDS)
    return end


def _range(reader: Consumer, topic: str, first: int, end: int) -> list[Recorded]:
    return [
        Recorded(place_of(topic, PARTITION, offset_of(one)), offset_of(one), one.key(), one.value())
        for one in read_range(reader, topic, PARTITION, first, end)
    ]


def _parsed(record: Recorded) -> object:
    try:
        return parse(record.value)
    except UnreadableRecordError:
        return None
