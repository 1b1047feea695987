"""The data that every contender gets: Avro orders in the Confluent wire format with the nine headers of an envelope."""

from __future__ import annotations

import io
import struct
from typing import Any

import fastavro
from confluent_kafka import Consumer, Producer, TopicPartition

PARTITIONS = 4
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": name, "type": kind}
        for name, kind in (
            ("id", "string"),
            ("customer", "string"),
            ("amount", "double"),
            ("currency", "string"),
            ("region", "string"),
            ("note", "string"),
        )
    ],
}
PARSED = fastavro.parse_schema(SCHEMA)
PREFIX = b"\x00" + struct.pack(">I", 1)
"""The schema's id is 1: the registry of a benchmark is new, and this schema is the first."""


def encode(order: dict[str, Any]) -> bytes:
    """An order in the wire format."""
    out = io.BytesIO()
    out.write(PREFIX)
    fastavro.schemaless_writer(out, PARSED, order)
    return out.getvalue()


def envelope(index: int) -> list[tuple[str, bytes]]:
    """The headers of the order number `index`."""
    correlation = f"{index:032x}"
    pairs = {
        "ce_specversion": "1.0",
        "ce_id": f"evt-{index}",
        "ce_source": "/shop/orders",
        "ce_type": "order.created",
        "ce_time": "2026-11-20T12:00:00Z",
        "content-type": "application/avro",
        "ce_correlationid": correlation,
        "traceparent": f"00-{correlation}-{(index % (2**64 - 1)) + 1:016x}-01",
        "correlation_id": correlation,
    }
    return [(name, value.encode()) for name, value in pairs.items()]


def load(bootstrap: str, topic: str, count: int) -> None:
    """Writes `count` orders: a third of them from `apac`, keys of 1,000 customers."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "compression.type": "lz4",
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
        }
    )
    for index in range(count):
        order = {
            "id": f"o{index}",
            "customer": f"c{index % 1000}",
            "amount": index * 1.5,
            "currency": "EUR",
            "region": ("emea", "amer", "apac")[index % 3],
            "note": "x" * 120,
        }
        producer.produce(topic, encode(order), f"c{index % 1000}", headers=envelope(index))  # type: ignore[arg-type]
        if index % 1000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise SystemExit("the orders could not be loaded")


def span_of(bootstrap: str, topics: list[str]) -> tuple[int, float]:
    """How many committed records the topics hold, and the seconds between the broker's stamps on the first and the last."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "span",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    places = [TopicPartition(topic, partition, 0) for topic in topics for partition in range(PARTITIONS)]
    consumer.assign(places)
    count, ended, first, last = 0, 0, None, 0
    while ended < len(places):
        for message in consumer.consume(5000, 1.0):
            if message.error() is not None:
                ended += 1
                continue
            stamp = message.timestamp()[1]
            first = stamp if first is None else min(first, stamp)
            last = max(last, stamp)
            count += 1
    consumer.close()
    return count, (last - (first or last)) / 1000
