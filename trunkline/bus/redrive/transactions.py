"""Redrive: dead letters of one pipeline are sent again, to that pipeline and no other.

A letter goes to `<pipeline>.retry` with its original bytes, key, headers and partition number, and in the same transaction it
is marked in `_trunkline.redriven`. So a redrive may be cancelled or killed at any point and begun again: nothing is sent twice.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from confluent_kafka import KafkaException, Producer

from trunkline.bus.accounting import audit
from trunkline.bus.accounting.audit import Chain, Entry
from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.kafka import KafkaSettings, end_offsets, produce, read_all, transactional_producer, translate
from trunkline.bus.names import Names
from trunkline.bus.redrive.edits import Editor
from trunkline.bus.redrive.jobs import JobLog, JobRecords
from trunkline.bus.redrive.marks import Marks, Settled, id_of_letters, write_mark
from trunkline.bus.redrive.resend import Resent, RetryWay
from trunkline.bus.topics import topic_states
from trunkline.core.errors import ConfigurationError

BATCH = 500
TIMEOUT = 15.0


class Sender:
    """The transactions that send letters of one pipeline again.

    There is one transactional id a pipeline: whoever opens a sender fences everyone who was sending before.
    """

    def __init__(self, settings: KafkaSettings, names: Names, pipeline: str) -> None:
        self._settings = settings
        self._names = names
        self._pipeline = pipeline
        self._producer: Producer | None = None
        self._chain = Chain()
        self._redriven = self._dropped = 0
        self.letters = ""
        """The id of the dead-letter topic, when this was opened."""

    def open(self) -> JobLog:
        """Fences who was sending, and gives the jobs of this pipeline as they are since then. Raises our error for Kafka's."""
        transactional_id = self._names.transactional_id(self._pipeline, "redrive")
        what = f"the dead letters of {self._pipeline} can't be sent again"
        # I18: who was sending is fenced, and his open transaction is over, before marks and progress are read.
        self._producer = transactional_producer(self._settings, transactional_id, what, linger_ms=0)
        self._chain = Chain()
        jobs = JobLog.read(self._settings, self._names, pipeline=self._pipeline)
        self._redriven = jobs.redriven.get(self._pipeline, 0)
        self._dropped = jobs.dropped.get(self._pipeline, 0)
        self.letters = id_of_letters(self._settings, self._names, self._pipeline)
        return jobs

    def send(
        self,
        letters: Sequence[tuple[DeadLetter, Sequence[Resent]]],
        *,
        run: str,
        by: str,
        ends: Mapping[int, int] | None = None,
        beside: Callable[[Producer], None] | None = None,
        entry: Entry | None = None,
    ) -> None:
        """Sends letters in one transaction, with their marks, the pipeline's count of them, what `beside` writes, and an audit entry.

        `ends` are those of the dead-letter topic's partitions up to which letters of the same failures are taken to be sent too.
        Raises our error for Kafka's; then nothing of it was sent, or nobody knows, and the sender must be opened again.
        """
        settled = Settled(run, by, time.time())

        def write(producer: Producer) -> None:
            for letter, records in letters:
                for one in records:
                    produce(producer, one.topic, one.value, one.key, one.headers, partition=one.partition)
                # I12: a letter that is sent again and the mark that says so are one transaction.
                self._mark(producer, letter, ends, settled)
            if letters:
                JobRecords(self._names).write_redriven(producer, self._pipeline, self._redriven + len(letters))
            if beside is not None:
                beside(producer)
            if entry is not None:
                audit.write(producer, self._names, self._chain, entry)

        self._commit(write, "sent again")
        self._redriven += len(letters)

    def drop(
        self,
        letters: Sequence[DeadLetter],
        settled: Settled,
        *,
        ends: Mapping[int, int] | None = None,
        entry: Entry,
    ) -> None:
        """Marks letters as dropped in one transaction, with the pipeline's count of them and the audit entry. As `send` otherwise."""

        def write(producer: Producer) -> None:
            for letter in letters:
                self._mark(producer, letter, ends, settled)
            JobRecords(self._names).write_dropped(producer, self._pipeline, self._dropped + len(letters))
            audit.write(producer, self._names, self._chain, entry)

        self._commit(write, "dropped")
        self._dropped += len(letters)

    def _mark(self, producer: Producer, letter: DeadLetter, ends: Mapping[int, int] | None, settled: Settled) -> None:
        end = (ends or {}).get(letter.partition, 0)
        write_mark(producer, self._names, self._pipeline, letter, end, settled, letters=self.letters)

    def _commit(self, write: Callable[[Producer], None], what: str) -> None:
        producer = self._producer
        assert producer is not None, "open the sender first"
        try:
            producer.begin_transaction()
            write(producer)
            producer.commit_transaction(TIMEOUT)
        except KafkaException as error:
            raise translate(error, f"the dead letters of {self._pipeline} can't be {what}") from error


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
        return self._unlike(Marks())

    def still_waiting(self) -> Iterator[DeadLetter]:
        """The dead letters that wait: those that were neither sent again nor dropped."""
        return self._unlike(Marks.read(self._settings, self._names, self._pipeline))

    def _unlike(self, marks: Marks) -> Iterator[DeadLetter]:
        """The letters that have no mark, and are not like one before."""
        seen = Marks()
        for message in read_all(self._settings, self._names.dead_letters(self._pipeline)):
            letter = DeadLetter.from_message(message)
            if letter not in marks and letter not in seen:
                seen.add(letter)
                yield letter

    def waiting(self, matches: Callable[[DeadLetter], bool] | None = None) -> list[DeadLetter]:
        """The dead letters that wait and, where given, match."""
        return [letter for letter in self.still_waiting() if matches is None or matches(letter)]

    def send(
        self,
        letters: Sequence[DeadLetter],
        *,
        rate: float | None = None,
        by: str = "",
        on_progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> int:
        """Sends chosen letters again as they are, at most `rate` a second, and returns how many were sent.

        `cancelled` is asked between transactions. Raises `ConfigurationError` for a source, whose quarantine holds what never
        was a record of a topic, and our error for Kafka's; what was sent until then is marked.
        """
        way = retry_way(self._settings, self._names, self._pipeline)
        sender = Sender(self._settings, self._names, self._pipeline)
        sender.open()
        # Somebody may have sent some of them since they were read: their marks are all there now, because we fenced him.
        marks = Marks.read(self._settings, self._names, self._pipeline)
        ends = end_offsets(self._settings, self._names.dead_letters(self._pipeline))
        run = uuid.uuid4().hex[:12]
        sent, remaining = 0, iter(letters)
        begun = time.monotonic()
        size = BATCH if rate is None else max(1, min(BATCH, int(rate)))
        while batch := list(islice(remaining, size)):
            if cancelled is not None and cancelled():
                break
            batch = [letter for letter in batch if letter not in marks]
            entry = Entry(time.time(), by, "redrive.send", self._pipeline, {"run": run, "letters": len(batch)})
            sending = [(letter, way.records(letter, run)) for letter in batch]
            sender.send(sending, run=run, by=by, ends=ends, entry=entry if batch else None)
            sent += len(batch)
            if on_progress is not None:
                on_progress(sent)
            if rate is not None:
                time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        return sent


def retry_way(settings: KafkaSettings, names: Names, pipeline: str, editor: Editor | None = None) -> RetryWay:
    """The way through a pipeline's retry topic. Raises `ConfigurationError` (`redrive.source`) where there is none, as of a source."""
    name = names.retry(pipeline)
    retry = topic_states(settings, [name]).get(name)
    if retry is None:
        raise ConfigurationError(
            f"{pipeline} has no retry topic: what a source has in quarantine never was a record",
            hint="a source's quarantine goes through the source: apply its manifest, or ask in the home folder of the worker that runs it",
            code="redrive.source",
        )
    known: dict[str, str] = {}

    def topic_id(topic: str) -> str:
        if topic not in known:
            state = topic_states(settings, [topic]).get(topic)
            known[topic] = state.id if state is not None else topic
        return known[topic]

    return RetryWay(names, pipeline, retry.partitions, topic_id, editor)
