"""Sealing the audit trail: what stands in it so far is covered, so that it can be seen whether it was changed (docs/adr/0031).

Seals are one chain, so one writes at a time: whoever owns the namespace's transactional id of commands and has read the trail to its end.
A command seals its own entries within its transaction. What others wrote in theirs, the workers seal each second, in the same way.
"""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaException, Producer

from trunkline.bus.accounting.audit import Chain, Trail, read_tail, write_seal
from trunkline.bus.kafka import KafkaSettings, transactional_producer, translate
from trunkline.bus.names import Names
from trunkline.core.errors import FatalError, RetriableError, TrunklineError
from trunkline.core.log import get_logger

log = get_logger(__name__)
STEP_SECONDS = 10.0
IDLE_FETCH_MS = 5
"""A command waits for the end of a fetch that finds nothing: a topic ends in a transaction's marker, which no reader sees."""
PATIENCE_SECONDS = 1.0
"""How long a transaction that is open is waited for. What stands behind one that a killed process left is sealed when it has ended."""


def commanding_producer(settings: KafkaSettings, names: Names, what: str) -> Producer:
    """The producer that owns the namespace's commands: who had them is fenced, and what it left open has ended. Raises our error."""
    transactional_id = names.transactional_id("_trunkline", "command")
    return transactional_producer(settings, transactional_id, what, timeout=STEP_SECONDS, linger_ms=0)


def tail_of(settings: KafkaSettings, names: Names, reader: Consumer) -> Trail | None:
    """The end of the trail, for a command that owns the id and seals what it writes; None where it has to leave that to the workers.

    No change is refused because the trail can't be sealed now: its entry stands in it, and is sealed later.
    """
    try:
        return read_tail(settings, reader, names, patience=PATIENCE_SECONDS)
    except (TrunklineError, KafkaException) as error:
        log.info("the audit trail is sealed later", topic=names.audit, reason=str(error))
        return None


def seal_own(producer: Producer, names: Names, tail: Trail | None, chain: Chain, who: str) -> None:
    """Seals what a command has just written with this producer, in its open transaction. Raises KafkaException."""
    if tail is not None and chain.head:
        write_seal(producer, names, tail.next_seal(who, chain.head))


def seal(settings: KafkaSettings, names: Names, *, who: str) -> bool:
    """Seals every entry that is committed, where there are any behind the last seal. Returns whether it wrote one. Blocks.

    Raises our error for Kafka's: `kafka.fenced` where somebody else was about to write, `audit.unsettled` while a transaction is open.
    """
    what = "the audit trail can't be sealed"
    reader = settings.reader(eof=True, idle_fetch_ms=IDLE_FETCH_MS)
    try:
        if not read_tail(settings, reader, names, patience=PATIENCE_SECONDS).unsettled:
            return False
        # I38: who seals owns the id before it reads the end of the trail, so that no two seals follow the same one.
        producer = commanding_producer(settings, names, what)
        tail = read_tail(settings, reader, names, patience=PATIENCE_SECONDS)
        if not tail.unsettled:
            return False
        try:
            producer.begin_transaction()
            write_seal(producer, names, tail.next_seal(who))
            producer.commit_transaction(STEP_SECONDS)
        except KafkaException:
            producer.purge()
            raise
    except KafkaException as error:
        raise translate(error, what) from error
    finally:
        reader.close()
    return True


def sealed_by_now(settings: KafkaSettings, names: Names, *, who: str, patience: float) -> bool:
    """Seals until every entry is covered, or `patience` seconds are over. Returns whether it is.

    Who may only read seals nothing. Raises our error for what else Kafka says.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            if not seal(settings, names, who=who):
                return True
        except FatalError:
            return False
        except RetriableError:
            if time.monotonic() > deadline:
                return False
        if time.monotonic() > deadline:
            return False
