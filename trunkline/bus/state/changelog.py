"""The changelog of a store: its topic, and how a partition's state is brought back from it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message

from trunkline.bus.kafka import (
    KafkaSettings,
    closing,
    end_offsets,
    headers_of,
    offset_of,
    produce,
    read_range,
    watermarks,
)
from trunkline.bus.state.entry import Entry, Record
from trunkline.bus.state.store import Identity, StateStore
from trunkline.bus.topics import COMPACTED, KEPT_DELETIONS, NEVER_EXPIRES, TOMBSTONE_MS, topic_identities
from trunkline.core.errors import RetriableError
from trunkline.core.log import get_logger
from trunkline.core.metrics import gauge

log = get_logger(__name__)
CHECKPOINT_LIFE = TOMBSTONE_MS / 1000 / 2
"""Seconds after which a checkpoint is not trusted: a deletion made since may be gone from the changelog already."""
BATCH = 1000
PROGRESS_SECONDS = 5.0
PUT_BACK_SECONDS = 30.0


def changelog_config(max_message_bytes: int) -> dict[str, str]:
    """The topic settings of a changelog: compacted, never expiring."""
    return {
        **COMPACTED,
        **NEVER_EXPIRES,
        **KEPT_DELETIONS,
        "max.message.bytes": str(max_message_bytes),
    }


@dataclass(frozen=True, slots=True)
class Changelog:
    """A changelog topic, and where this worker keeps the stores that copy it. Blocks; belongs in the pipeline's thread.

    `topic_id` is Kafka's. `folder` has a subfolder a partition, and is this worker's own.
    """

    settings: KafkaSettings
    pipeline: str
    topic: str
    topic_id: str
    folder: Path

    def open(self, partitions: Iterable[int]) -> dict[int, StateStore]:
        """The stores of partitions that came to this worker, complete up to the stable end of the changelog.

        Each goes on from its local checkpoint; where that is missing, damaged or too old, from the whole changelog. What only the copy of
        a former changelog has is put into this one first. What an unfinished transaction has written is waited for. Raises
        `RetriableError`, also while another process has a store open, and `FatalError` for what Kafka refuses.
        """
        opened: dict[int, StateStore] = {}
        wanted = list(partitions)
        try:
            with closing(self.settings.reader(eof=True)) as reader:
                for partition in wanted:
                    self._put_back(reader, partition)
                ends = self._ends(wanted)
                for partition in wanted:
                    opened[partition] = self._usable(reader, partition, ends[partition])
                    self._replay(reader, opened[partition], ends[partition])
        except BaseException:
            for store in opened.values():
                store.close()
            raise
        return opened

    def has_copy(self, partition: int) -> bool:
        """Whether this worker has a copy of the partition, be it of this changelog or of a former one."""
        return (self.folder / str(partition)).exists()

    def catch_up(self, store: StateStore) -> None:
        """Brings an open store up to the stable end: after a transaction of which nobody knows whether it committed."""
        partition = store.identity.partition
        end = self._ends([partition])[partition]
        with closing(self.settings.reader(eof=True)) as reader:
            self._replay(reader, store, end)

    def _ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """Where the partitions end. Raises `RetriableError` where the topic was deleted or made anew since it was looked at.

        Such a topic seems to end before the copies of the former one, which would be thrown away, and they may be all that is left.
        """
        ends = end_offsets(self.settings, self.topic)
        # Asked after the ends: a topic that still is the same one was so when they were asked for.
        now = topic_identities(self.settings, [self.topic]).get(self.topic)
        if now is None or now.id != self.topic_id or not ends.keys() >= set(partitions):
            became = "made anew" if now is not None and now.id != self.topic_id else "deleted"
            raise RetriableError(
                f"the changelog {self.topic} was {became} while its stores were opened",
                where=self.topic,
                hint="nothing is lost: the pipeline goes on with the new one, into which it puts back what the worker still has",
                code="state.changelog_changed",
            )
        return {partition: ends[partition] for partition in partitions}

    def _put_back(self, reader: Consumer, partition: int) -> None:
        """Writes what only a copy of a former changelog has: that one was deleted, and the copy is all that is left of it.

        A key that this changelog knows, be it a deletion, is newer.
        """
        copy = StateStore.of_former(self.folder / str(partition), Identity(self.topic, self.topic_id, partition))
        if copy is None:
            return
        try:
            first = watermarks(reader, self.topic, partition)[0]
            end = self._ends([partition])[partition]
            newer = {message.key() for message in read_range(reader, self.topic, partition, first, end)}
            count = self._write(partition, ((key, entry) for key, entry in copy.items() if key not in newer))
        finally:
            copy.close()
        log.warning(
            "a changelog was made anew: what the copy of the former one has was put back",
            pipeline=self.pipeline,
            topic=self.topic,
            partition=partition,
            records=count,
        )

    def _write(self, partition: int, entries: Iterable[tuple[bytes, Entry]]) -> int:
        producer, failures, count = self.settings.producer(), [], 0

        def acknowledged(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        for key, entry in entries:
            produce(
                producer, self.topic, entry.value, key, entry.headers, partition=partition, on_delivery=acknowledged
            )
            count += 1
        if producer.flush(PUT_BACK_SECONDS) or failures:
            reason = failures[0].str() if failures else "no acknowledgement"
            raise RetriableError(f"{self.topic} can't be written: {reason}", code="kafka.unavailable")
        return count

    def _usable(self, reader: Consumer, partition: int, end: int) -> StateStore:
        identity = Identity(self.topic, self.topic_id, partition)
        folder = self.folder / str(partition)
        store = StateStore.open(folder, identity)
        unusable = self._doubt(reader, store, end)
        if unusable is None:
            return store
        store.throw_away(unusable)
        return StateStore.open(folder, identity)

    def _doubt(self, reader: Consumer, store: StateStore, end: int) -> str | None:
        """Why a checkpoint can't be gone on from; None where it can."""
        if store.offset == 0:
            return None
        if store.offset > end:
            return f"it stands at offset {store.offset}, the changelog ends at {end}"
        if store.offset < watermarks(reader, self.topic, store.identity.partition)[0]:
            return f"the changelog after its offset {store.offset} is not whole any more"
        if time.time() - store.updated_at > CHECKPOINT_LIFE:
            return f"its checkpoint is older than {CHECKPOINT_LIFE / 3600:g} hours"
        return None

    def _replay(self, reader: Consumer, store: StateStore, end: int) -> None:
        partition, first = store.identity.partition, store.offset
        remaining = gauge("trunkline_state_restore_remaining").labels(self.pipeline, str(partition))
        begun = said = time.monotonic()
        count = 0
        remaining.set(end - first)
        messages = read_range(reader, self.topic, partition, first, end)
        while batch := list(islice(messages, BATCH)):
            reached = offset_of(batch[-1]) + 1
            store.write(_records(batch), reached)
            count += len(batch)
            remaining.set(end - reached)
            if time.monotonic() - said > PROGRESS_SECONDS:
                said = time.monotonic()
                log.info(
                    "restoring state",
                    pipeline=self.pipeline,
                    topic=self.topic,
                    partition=partition,
                    records=count,
                    remaining=end - reached,
                )
        store.write((), end)
        remaining.set(0)
        if count:
            log.info(
                "state restored",
                pipeline=self.pipeline,
                topic=self.topic,
                partition=partition,
                records=count,
                from_offset=first,
                seconds=round(time.monotonic() - begun, 3),
            )


def _records(messages: Iterable[Message]) -> Iterator[Record]:
    for message in messages:
        value = message.value()
        yield message.key() or b"", Entry(value, headers_of(message)) if value is not None else None
