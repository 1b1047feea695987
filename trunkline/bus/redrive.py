"""Redrive: dead letters of one pipeline are sent again, to that pipeline and no other.

A letter goes to `<pipeline>.retry` with its original bytes, key, headers and partition number, and in the same transaction it
is marked in `_trunkline.redriven`. So a redrive may be cancelled or killed at any point and begun again: nothing is sent twice.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import orjson
from confluent_kafka import KafkaException, Producer

from trunkline.bus.deadletters import ORIGIN, REDRIVE, DeadLetter
from trunkline.bus.kafka import KafkaSettings, produce, read_all, translate
from trunkline.bus.names import Names
from trunkline.bus.topics import topic_states
from trunkline.core.envelope import Headers
from trunkline.core.errors import ConfigurationError

VERSION = 1
BATCH = 500
TIMEOUT = 15.0
Place = tuple[str, int, int]
"""Topic, partition and offset of the record that failed."""


class Redrive:
    """The dead letters of one pipeline. Blocks; belongs in a thread."""

    def __init__(self, settings: KafkaSettings, names: Names, pipeline: str) -> None:
        self._settings = settings
        self._names = names
        self._pipeline = pipeline

    def letters(self) -> Iterator[DeadLetter]:
        """Every dead letter, one for each failure of a record: a record that was saved twice around a crash is given once.

        A record that failed again after a redrive counts as another failure.
        """
        seen: set[Place] = set()
        for message in read_all(self._settings, self._names.dead_letters(self._pipeline)):
            letter = DeadLetter.from_message(message)
            place = letter.origin
            if place[1] >= 0:
                if place in seen:
                    continue
                seen.add(place)
            yield letter

    def waiting(self, matches: Callable[[DeadLetter], bool] | None = None) -> list[DeadLetter]:
        """The dead letters that were not sent again yet and, where given, match."""
        sent = self._sent()
        return [
            letter for letter in self.letters() if _mark(letter) not in sent and (matches is None or matches(letter))
        ]

    def send(
        self,
        letters: Sequence[DeadLetter],
        *,
        rate: float | None = None,
        by: str = "",
        on_progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> int:
        """Sends letters again, at most `rate` a second, and returns how many were sent.

        `cancelled` is asked between transactions. Raises `ConfigurationError` for a source, whose quarantine holds what never
        was a record of a topic, and our error for Kafka's; what was sent until then is marked.
        """
        states = topic_states(self._settings, [self._names.retry(self._pipeline)])
        retry = states.get(self._names.retry(self._pipeline))
        if retry is None:
            raise ConfigurationError(
                f"{self._pipeline} has no retry topic: what a source has in quarantine never was a record",
                hint="mend the input and send it to the source again",
                code="redrive.source",
            )
        ids = {
            state.name: state.id
            for state in topic_states(self._settings, {letter.origin[0] for letter in letters}).values()
        }
        producer = self._settings.producer(transactional_id=self._names.transactional_id(self._pipeline, "redrive"))
        run = uuid.uuid4().hex[:12]
        sent, remaining = 0, iter(letters)
        begun = time.monotonic()
        try:
            producer.init_transactions(30)
            # Somebody may have sent some of them since they were read: their marks are all there now, because we fenced him.
            already = self._sent()
            size = BATCH if rate is None else max(1, min(BATCH, int(rate)))
            while batch := list(islice(remaining, size)):
                if cancelled is not None and cancelled():
                    break
                batch = [letter for letter in batch if _mark(letter) not in already]
                self._send_batch(producer, batch, retry.partitions, ids, run, by)
                sent += len(batch)
                if on_progress is not None:
                    on_progress(sent)
                if rate is not None:
                    time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        except KafkaException as error:
            raise translate(error, f"the dead letters of {self._pipeline} can't be sent again") from error
        return sent

    def _send_batch(
        self, producer: Producer, batch: Sequence[DeadLetter], partitions: int, ids: dict[str, str], run: str, by: str
    ) -> None:
        producer.begin_transaction()
        for letter in batch:
            topic, partition, _ = letter.origin
            headers = self._headers(letter, ids, run)
            # A record keeps its partition number, so that it meets the worker that has its key.
            target = partition if topic and 0 <= partition < partitions else letter.partition
            produce(producer, self._names.retry(self._pipeline), letter.value, letter.key, headers, partition=target)
            # I12: a letter that is sent again and the mark that says so are one transaction.
            mark = orjson.dumps({"v": VERSION, "run": run, "by": by, "at": time.time()})
            producer.produce(self._names.redriven, mark, f"{self._pipeline}/{_mark(letter)}".encode())
        producer.commit_transaction(TIMEOUT)

    def _headers(self, letter: DeadLetter, ids: dict[str, str], run: str) -> Headers:
        topic, partition, offset = letter.origin
        headers = [(name, value) for name, value in letter.original_headers() if name != REDRIVE]
        if not any(name == ORIGIN for name, _ in headers):
            headers.append((ORIGIN, f"{topic}/{ids.get(topic, topic)}/{partition}/{offset}".encode()))
        headers.append((REDRIVE, run.encode()))
        return headers

    def _sent(self) -> set[str]:
        """The marks of this pipeline's letters that were sent again."""
        prefix = f"{self._pipeline}/"
        found = set()
        for message in read_all(self._settings, self._names.redriven):
            key = (message.key() or b"").decode("utf-8", "replace")
            if key.startswith(prefix) and message.value() is not None:
                found.add(key.removeprefix(prefix))
        return found


def _mark(letter: DeadLetter) -> str:
    """What names one failure: the place of the record that failed, else the letter's own."""
    topic, partition, offset = letter.origin
    return f"{topic}/{partition}/{offset}" if partition >= 0 else f"@{letter.partition}/{letter.offset}"
