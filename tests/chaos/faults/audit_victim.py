"""A process that appends to the audit trail in all the ways there are, until it is killed: `audit_victim.py BOOTSTRAP NAMESPACE SEED`.

A line is written for each change that Kafka has confirmed, with the id of its entries; other lines are its log.
"""

from __future__ import annotations

import random
import sys
import time
import uuid

from confluent_kafka import KafkaException

from tests.chaos.faults import audit_victim
from trunkline.bus.accounting.audit import Chain, Entry, append, write
from trunkline.bus.commands import Effect, Latest, Write, carry_out
from trunkline.bus.kafka import KafkaSettings, transactional_producer
from trunkline.bus.names import Names
from trunkline.bus.sealing import seal
from trunkline.core.errors import RetriableError

CONFIRMED = "confirmed "


class Appender:
    """One life of the process."""

    def __init__(self, settings: KafkaSettings, names: Names, chance: random.Random) -> None:
        self._settings, self._names, self._chance = settings, names, chance
        self._own = names.transactional_id("victim", "test")
        self._begin()

    def _begin(self) -> None:
        self._producer = transactional_producer(self._settings, self._own, "it can't append", linger_ms=0)
        self._chain = Chain()

    def change(self) -> None:
        """One change, told when Kafka has it."""
        identity = uuid.uuid4().hex
        try:
            self._chance.choice((self._command, self._together, self._together, self._alone, self._seal))(identity)
        except RetriableError:
            return  # somebody else was faster, or nobody knows: nothing is claimed of it
        print(f"{CONFIRMED}{identity}", flush=True)

    def _entry(self, identity: str) -> Entry:
        return Entry(time.time(), "ada", "pipeline.stop", "orders", {"identity": identity})

    def _command(self, identity: str) -> None:
        record = Write(self._names.control, b"orders", identity.encode())

        def decide(_latest: Latest) -> Effect[None]:
            return Effect(None, [record], [self._entry(identity) for _ in range(self._chance.randint(1, 3))])

        carry_out(self._settings, self._names, self._names.control, decide, by="ada", what="it can't be changed")

    def _together(self, identity: str) -> None:
        """Entries in a transaction of one's own, as parking writes them, which commits or not."""
        try:
            self._in_a_transaction(identity)
        except KafkaException as error:
            # A machine that is slow lets a transaction time out: whoever it was begins again, and claims nothing.
            self._begin()
            raise RetriableError(str(error)) from error

    def _in_a_transaction(self, identity: str) -> None:
        self._producer.begin_transaction()
        for _ in range(self._chance.randint(1, 5)):
            write(self._producer, self._names, self._chain, self._entry(identity))
        self._producer.flush(10)
        if self._chance.random() < 0.2:
            self._producer.abort_transaction(10)
            self._chain = Chain()
            raise RetriableError("undone")
        self._producer.commit_transaction(10)

    def _alone(self, identity: str) -> None:
        append(self._settings, self._names, self._entry(identity))

    def _seal(self, _identity: str) -> None:
        seal(self._settings, self._names, who="victim")
        raise RetriableError("nothing was changed")


def main(bootstrap: str, namespace: str, seed: str) -> None:
    """Changes without end."""
    appender = Appender(KafkaSettings(bootstrap), Names(namespace), random.Random(seed))
    while True:
        appender.change()


if __name__ == "__main__":
    audit_victim.main(*sys.argv[1:])
