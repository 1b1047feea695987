"""What a split of a source writes: its records and the position that they reach, in one Kafka transaction."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from confluent_kafka import KafkaException, Producer

from trunkline.bus.accounting.trace import TraceBatch
from trunkline.bus.kafka import KafkaSettings, RestingProducer, produce, transactional_producer, translate
from trunkline.bus.names import Names
from trunkline.bus.source.positions import SplitPosition, position_key, read_positions
from trunkline.bus.source.publish import Published, Publisher
from trunkline.core.contracts import SourceBatch
from trunkline.core.errors import RetriableError, TrunklineError
from trunkline.core.metrics import counter, histogram

T = TypeVar("T")
TIMEOUT = 15.0


class SplitWriter:
    """The transactions of one split, in a thread of their own: one transactional id a split, so that a zombie is fenced."""

    def __init__(
        self, settings: KafkaSettings, names: Names, pipeline: str, split: str, publisher: Publisher, worker: str
    ) -> None:
        self._settings = settings
        self._names = names
        self._pipeline = pipeline
        self._split = split
        self._publisher = publisher
        self._trace = TraceBatch(pipeline, "source", worker)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"split-{pipeline}")
        self._producers = RestingProducer(self._new_producer)
        self._read = counter("trunkline_records_in_total").labels(pipeline)
        self._settled = counter("trunkline_records_settled_total")
        self._seconds = histogram("trunkline_transaction_seconds").labels(pipeline)

    async def open(self) -> SplitPosition:
        """Fences the former holder and returns where the split stands."""
        return await self._in_thread(self._open)

    async def write(self, batch: SourceBatch, known: SplitPosition) -> SplitPosition:
        """Writes a batch with the position it reaches. Raises `TrunklineError`; then nothing of it counts."""
        return await self._in_thread(lambda: self._write(batch, known))

    async def rest(self) -> None:
        """Gives the producer up where nothing was written for long; a write makes a new one."""
        if self._producers.due:
            await self._in_thread(self._producers.rest)

    async def close(self) -> None:
        """Ends the producer."""
        self._thread.shutdown(wait=False)

    def _in_thread(self, function: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _new_producer(self) -> Producer:
        transactional_id = self._names.transactional_id(self._pipeline, "split", self._split)
        return transactional_producer(self._settings, transactional_id)

    def _open(self) -> SplitPosition:
        self._producers.renew()
        # I8: the former holder is fenced before the position is read, so nobody can move it behind our back.
        return read_positions(self._settings, self._names).get((self._pipeline, self._split), SplitPosition())

    def _write(self, batch: SourceBatch, known: SplitPosition) -> SplitPosition:
        begun = time.monotonic()
        # While the producer rested another worker may have had the split, or a person may have moved its position.
        if self._producers.resting and self._open() != known:
            raise RetriableError(f"the position of {self._split} of {self._pipeline} was moved", code="source.moved")
        producer = self._producers.use()
        counts = {"delivered": 0, "filtered": 0, "dead": 0}
        outputs = 0
        try:
            producer.begin_transaction()
            index = known.read
            for published in self._publish(batch):
                for output in published.outputs:
                    produce(producer, output.topic, output.value, output.key, output.headers)
                counts[published.outcome] += 1
                outputs += len(published.outputs) if published.outcome == "delivered" else 0
                self._trace.add(
                    f"source:{self._pipeline}/{self._split}",
                    0,
                    index,
                    published.correlation_id,
                    published.outcome,
                    published.detail,
                )
                index += 1
            for record in self._trace.drain():
                producer.produce(self._names.trace, record)
            position = replace(
                known,
                position=batch.position,
                finished=batch.finished,
                read=index,
                delivered=known.delivered + counts["delivered"],
                filtered=known.filtered + counts["filtered"],
                dead=known.dead + counts["dead"],
                outputs=known.outputs + outputs,
            )
            # I6: records and the position that they reach are one transaction.
            producer.produce(self._names.positions, position.to_record(), position_key(self._pipeline, self._split))
            producer.commit_transaction(TIMEOUT)
        except KafkaException as error:
            self._trace.drain()
            # Whatever became of it: a new producer settles the transaction, and the position is read again.
            raise translate(error, f"the records of {self._pipeline} can't be written") from error
        except TrunklineError:
            self._trace.drain()
            # Where even that fails, the next producer with this id ends the transaction.
            with contextlib.suppress(KafkaException):
                producer.abort_transaction(TIMEOUT)
            raise
        self._seconds.observe(time.monotonic() - begun)
        self._read.inc(index - known.read)
        for outcome, count in counts.items():
            if count:
                self._settled.labels(self._pipeline, outcome).inc(count)
        return position

    def _publish(self, batch: SourceBatch) -> Iterator[Published]:
        for event in batch.events:
            yield self._publisher.publish(event)
        for rejected in batch.rejected:
            yield self._publisher.quarantine(rejected)
