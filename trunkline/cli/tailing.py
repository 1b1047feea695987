"""`topic tail`: the last records of a topic and those that arrive, decoded and filtered."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from trunkline.bus.kafka import KafkaSettings, end_offsets, headers_of, offset_of, translate, watermarks
from trunkline.bus.redrive.letters import decoded_value, text_of
from trunkline.cli.output import Output
from trunkline.cli.topics import require_topic
from trunkline.control.timestamps import utc
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.expressions import BOOL, Expression, compile_expression
from trunkline.core.jsonable import to_jsonable
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder

_PLACEHOLDER = re.compile(r"%([tpokshTKS%])|\\([nrt\\])")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_READ_BACK = 8
"""A partition is read back so many times as far as asked at first where a filter or markers leave too few records."""


def tail(
    out: Output,
    kafka: KafkaSettings,
    registry: RegistryClient,
    topic: str,
    *,
    follow: bool,
    count: int,
    where: str | None,
    form: str | None,
) -> None:
    """Prints the last `count` records that the filter lets pass, oldest first, and with `follow` those that arrive."""
    if form is not None:
        formatted({}, form)
    holds = compile_expression(where, expect=BOOL, where="--filter") if where is not None else None
    require_topic(kafka, topic)
    decoder = Decoder(registry)
    reader = kafka.reader(eof=True)
    try:
        ends = end_offsets(kafka, topic)
        last: list[dict[str, Any]] = []
        if count:
            for partition, end in ends.items():
                last += _last(reader, topic, partition, end, count, decoder, holds)
        last.sort(key=lambda record: (record["timestamp"], record["partition"], record["offset"]))
        for record in last[-count:] if count else []:
            _print(out, record, form)
        if follow:
            reader.assign([TopicPartition(topic, partition, end) for partition, end in ends.items()])
            for message in _arriving(reader):
                arrived = decoded(message, decoder, holds)
                if arrived is not None:
                    _print(out, arrived, form)
    finally:
        reader.close()


def _last(
    reader: Consumer, topic: str, partition: int, end: int, count: int, decoder: Decoder, holds: Expression | None
) -> list[dict[str, Any]]:
    """The last records of one partition, read back further and further until there are enough."""
    first = watermarks(reader, topic, partition)[0]
    back = count
    while True:
        begin = max(first, end - back)
        found = [
            record
            for message in _until(reader, topic, partition, begin, end)
            if (record := decoded(message, decoder, holds)) is not None
        ]
        if len(found) >= count or begin <= first:
            return found[-count:]
        back *= _READ_BACK


def _until(reader: Consumer, topic: str, partition: int, begin: int, end: int) -> Iterator[Message]:
    if begin >= end:
        return
    reader.assign([TopicPartition(topic, partition, begin)])
    while True:
        message = reader.poll(10)
        if message is None:
            return  # an open transaction holds the rest back
        error = message.error()
        if error is None:
            if offset_of(message) >= end:
                return
            yield message
            if offset_of(message) == end - 1:
                return
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            return
        elif not error.retriable():
            raise translate(KafkaException(error), f"{topic}[{partition}] can't be read")


def _arriving(reader: Consumer) -> Iterator[Message]:
    while True:
        message = reader.poll(0.5)
        if message is not None and message.error() is None:
            yield message


def decoded(message: Message, decoder: Decoder, holds: Expression | None = None) -> dict[str, Any] | None:
    """A record as data; None where the filter does not let it pass. What the filter can't be evaluated on does not pass."""
    topic, value, key = message.topic() or "", message.value(), message.key()
    timestamp, headers = message.timestamp()[1], headers_of(message)
    datum, error = decoded_value(value, decoder)
    if holds is not None:
        partition = message.partition() or 0
        event = Event(
            datum,
            raw=value,
            raw_key=key,
            headers=headers,
            topic=topic,
            partition=partition,
            offset=offset_of(message),
            timestamp=timestamp,
        )
        try:
            if holds(datum, event) is not True:
                return None
        except RejectedError:
            return None
    record = {
        "topic": topic,
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": timestamp,
        "time": utc(timestamp) if timestamp > 0 else None,
        "key": text_of(key),
        "headers": {name: text_of(content) for name, content in headers},
        "value": to_jsonable(datum),
    }
    return record if error is None else {**record, "undecodable": error}


def formatted(record: dict[str, Any], form: str) -> str:
    """A record in kcat's placeholders. Raises `ConfigurationError` for one that is not known."""
    unknown = re.search(r"%(?![tpokshTKS%])(.?)", form.replace("%%", ""))
    if unknown is not None:
        raise ConfigurationError(
            f"%{unknown[1]} means nothing",
            where="--format",
            hint="known: %t %p %o %k %s %h %T %K %S %%",
            code="option.format",
        )
    value = record.get("value")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    key = record.get("key") or ""
    headers = ",".join(f"{name}={content}" for name, content in record.get("headers", {}).items())
    parts = {
        "t": record.get("topic"),
        "p": record.get("partition"),
        "o": record.get("offset"),
        "k": key,
        "s": text,
        "h": headers,
        "T": record.get("timestamp"),
        "K": len(key.encode()),
        "S": len(text.encode()),
        "%": "%",
    }
    return _PLACEHOLDER.sub(lambda match: str(parts[match[1]]) if match[1] else _ESCAPES[match[2]], form)


def _print(out: Output, record: dict[str, Any], form: str | None) -> None:
    if form is not None:
        line = formatted(record, form)
        sys.stdout.write(line if line.endswith("\n") else line + "\n")
    elif out.for_people:
        value = json.dumps(record["value"], ensure_ascii=False)
        key = f" {record['key']}" if record["key"] is not None else ""
        broken = f"  ({record['undecodable']})" if "undecodable" in record else ""
        sys.stdout.write(
            f"{record['time'] or '-'} {record['topic']}[{record['partition']}]@{record['offset']}{key} {value}{broken}\n"
        )
    elif out.form.value == "json":
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("---\n")
        out.data(record)
    sys.stdout.flush()
