"""The practical limit of one Python process: consume, decode, change, encode, produce; flush and commit each second."""

from __future__ import annotations

import io
import os
import time

from confluent_kafka import Consumer, Producer
from fastavro import schemaless_reader, schemaless_writer

from benchmarks.orders import PARSED, PREFIX

BOOTSTRAP, SOURCE, TARGET = os.environ["PEER_BOOTSTRAP"], os.environ["PEER_SRC"], os.environ["PEER_DST"]
TRANSACTIONAL = os.environ.get("PEER_TRANSACTIONAL") == "1"
GROUP = os.environ["PEER_GROUP"]


def transform(value: bytes) -> bytes | None:
    """The work on one order."""
    order = schemaless_reader(io.BytesIO(value[5:]), PARSED, None)
    if order["region"] == "apac":
        return None
    order["amount"] *= 1.1
    order["note"] = order["note"][:60]
    out = io.BytesIO()
    out.write(PREFIX)
    schemaless_writer(out, PARSED, order)
    return out.getvalue()


def main() -> None:
    """Runs until it is ended."""
    consumer = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "queued.min.messages": 100_000,
            "isolation.level": "read_committed",
        }
    )
    options = {
        "linger.ms": 20,
        "compression.type": "lz4",
        "enable.idempotence": True,
        "queue.buffering.max.messages": 1_000_000,
    }
    if TRANSACTIONAL:
        options |= {"transactional.id": f"{GROUP}-tx", "retry.backoff.ms": 5}
    producer = Producer({"bootstrap.servers": BOOTSTRAP, **options})
    if TRANSACTIONAL:
        producer.init_transactions()
    consumer.subscribe([SOURCE])
    begun: float | None = None
    while True:
        messages = consumer.consume(1000, 0.05)
        if messages and begun is None:
            begun = time.monotonic()
            if TRANSACTIONAL:
                producer.begin_transaction()
        for message in messages:
            output = transform(message.value() or b"")
            if output is not None:
                producer.produce(TARGET, output, message.key(), headers=message.headers())
        producer.poll(0)
        if begun is not None and time.monotonic() - begun >= (0.2 if TRANSACTIONAL else 1.0):
            if TRANSACTIONAL:
                positions = consumer.position(consumer.assignment())
                producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
                producer.commit_transaction()
            else:
                producer.flush()
                consumer.commit(asynchronous=False)
            begun = None


if __name__ == "__main__":
    main()
