"""Writing entries and seals: as a part of a transaction with what they tell of, or by themselves where there can be none."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from trunkline.bus.accounting.audit.chain import SEAL_KEY, Chain, Seal
from trunkline.bus.accounting.audit.entry import Entry
from trunkline.bus.accounting.audit.reading import PARTITION
from trunkline.bus.kafka import KafkaSettings, produce, produce_and_wait
from trunkline.bus.names import Names
from trunkline.core.redaction import redact


def write(
    producer: Producer,
    names: Names,
    chain: Chain,
    entry: Entry,
    *,
    on_delivery: Callable[[KafkaError | None, Message], None] | None = None,
) -> None:
    """Hands the next entry of a chain to its producer, as a part of the open transaction. `details` must hold no secret.

    Whoever aborts that transaction, or does not know what became of it, must not go on with the chain. Raises KafkaException.
    """
    produce(producer, names.audit, chain.value(entry), entry.key, [], partition=PARTITION, on_delivery=on_delivery)


def write_seal(producer: Producer, names: Names, seal: Seal) -> None:
    """Hands a seal to the producer that owns the namespace's commands: nobody else writes seals. Raises KafkaException."""
    produce(producer, names.audit, seal.to_value(), SEAL_KEY, [], partition=PARTITION)


def append(settings: KafkaSettings, names: Names, entry: Entry) -> None:
    """Writes one entry by itself; returns when every replica has it. Raises our error for Kafka's. `details` must hold no secret."""
    produce_and_wait(settings.producer(), names.audit, Chain().value(entry), entry.key, partition=PARTITION)


@contextmanager
def announced(settings: KafkaSettings, names: Names, entry: Entry) -> Iterator[None]:
    """For what can't be in a transaction with its entry, such as deleting a topic: appends that it is asked for, and what came of it.

    The entry is appended twice: before, with `.asked` behind its action, and after, with an `outcome` in its details. Who was killed on
    the way left an entry without an outcome. Raises our error for Kafka's; then nothing was begun, or its outcome is not known.
    """
    producer, chain, command = settings.producer(), Chain(), uuid.uuid4().hex[:16]

    def write_down(action: str, outcome: Mapping[str, Any]) -> None:
        made = replace(entry, at=time.time(), action=action, details={**entry.details, **outcome}, command=command)
        produce_and_wait(producer, names.audit, chain.value(made), made.key, partition=PARTITION)

    write_down(f"{entry.action}.asked", {})
    try:
        yield
    except BaseException as error:
        write_down(entry.action, {"outcome": "failed", "cause": redact(str(error))})
        raise
    write_down(entry.action, {"outcome": "done"})
