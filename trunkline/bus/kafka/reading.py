"""Reading topics up to the ends they have, and what a message that was read holds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from operator import methodcaller
from typing import cast

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, Message, TopicPartition

from trunkline.bus.kafka.cluster import end_offsets, watermarks
from trunkline.bus.kafka.errors import passes, translate
from trunkline.bus.kafka.settings import KafkaSettings
from trunkline.core.envelope import Headers, WireHeaders
from trunkline.core.errors import RetriableError
from trunkline.core.log import get_logger

log = get_logger(__name__)
UNREADABLE = (SystemError, UnicodeDecodeError)
"""What confluent-kafka 2.16 raises for headers with a name that is no UTF-8: the first one around the second."""
# Called from C: there the interpreter sees that the method both answered and raised. Python 3.11's own call of such a method, once
# it is specialised, goes on with the answer, which crashes it.
_HEADERS = methodcaller("headers")


def read_all(
    settings: KafkaSettings,
    topic: str,
    *,
    partitions: Iterable[int] | None = None,
    start: Callable[[Consumer, int], int] | None = None,
    timeout: float = 30.0,
    patient: bool = True,
) -> Iterator[Message]:
    """Every committed record of a topic up to the ends it has now, partition by partition.

    `start` gives the first offset of a partition; without it the oldest one is taken. The ends are those of all records, open
    transactions included: a record of ours behind somebody's open transaction is waited for, unless the reader is not
    `patient` and takes what is committed now. Raises `RetriableError` when a
    read does not advance for `timeout` seconds. A topic that does not exist has no records.
    """
    ends = end_offsets(settings, topic, committed_only=not patient)
    wanted = sorted(ends) if partitions is None else [partition for partition in partitions if partition in ends]
    if not wanted:
        return
    reader = settings.reader(eof=True)
    try:
        for partition in wanted:
            first = watermarks(reader, topic, partition, timeout)[0]
            if start is not None:
                first = max(first, start(reader, partition))
            yield from read_range(reader, topic, partition, first, ends[partition], timeout)
    finally:
        reader.close()


def read_range(
    reader: Consumer, topic: str, partition: int, first: int, end: int, timeout: float = 30.0
) -> Iterator[Message]:
    """The committed records of a partition from `first` to before `end`, with a reader that tells of ends (`eof=True`).

    Raises as `read_all`.
    """
    if first >= end:
        return
    reader.assign([TopicPartition(topic, partition, first)])
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        # `consume` alone would wait for its time-out, or for that many, also at the end.
        messages = [*reader.consume(1, 0.05), *reader.consume(1000, 0)]
        for message in messages:
            error = message.error()
            if message.topic() is not None and (message.topic(), message.partition()) != (topic, partition):
                continue  # left over from what this reader read before
            if error is None:
                if offset_of(message) >= end:
                    return
                yield message
                if offset_of(message) == end - 1:
                    return
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                # Transaction markers and aborted records count as offsets: the end may be reached without a record at `end - 1`.
                if offset_of(message) >= end:
                    return
            elif not passes(error, member=False):
                raise translate(error, f"{topic}[{partition}] can't be read")
        if any(message.error() is None for message in messages):
            deadline = time.monotonic() + timeout
    raise RetriableError(
        f"{topic}[{partition}] gave nothing for {timeout:g} s before its end {end}",
        hint="a transaction that never ended may hold it: kafka-transactions.sh find-hanging names those",
        code="kafka.unavailable",
    )


def records_of(messages: Iterable[Message], what: str, *, member: bool = False) -> list[Message]:
    """The records among what a consumer gave. Raises our error, which begins with `what`, for one that does not pass by itself.

    A consumer gives an error in the place of a record, and may give nothing more of that partition for ever. `member` as for `passes`.
    """
    found = []
    for message in messages:
        error = message.error()
        if error is None:
            found.append(message)
        elif not passes(error, member=member):
            place = f"{message.topic()}[{message.partition()}]" if message.topic() else None
            raise translate(error, what, where=place)
    return found


def headers_of(message: Message) -> Headers:
    """The headers of a message that was read. A header without a value is given an empty one."""
    return [(name, content or b"") for name, content in wire_headers_of(message)]


def wire_headers_of(message: Message) -> WireHeaders:
    """The headers of a message that was read, as they are."""
    try:
        found = _HEADERS(message)
    except UNREADABLE:
        return without_headers(message)
    return cast("list[tuple[str, bytes | None]]", found or [])


def without_headers(message: Message) -> Headers:
    """The message goes on without its headers, of which one has a name that is no UTF-8: the client can give none of them then.

    Asked again the client gives pairs with nothing in the place of the name, at which the interpreter crashes; so they are replaced.
    """
    message.set_headers([])
    log.warning(
        "the headers of a record can't be read: a name is not UTF-8; it is taken as a record without headers",
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
    )
    return []


def offset_of(message: Message) -> int:
    """The offset of a message that was read."""
    offset = message.offset()
    return OFFSET_INVALID if offset is None else offset


@contextlib.contextmanager
def closing(consumer: Consumer) -> Iterator[Consumer]:
    """The consumer, closed at the end."""
    try:
        yield consumer
    finally:
        consumer.close()
