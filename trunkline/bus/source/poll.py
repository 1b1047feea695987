"""The source runtime: polls the splits that this worker holds the lease of, and hands what it read to a `SplitWriter`.

Which worker runs which split follows from group assignment over the partitions of the lease topic. On gaining a lease whoever
held it is fenced, then the position is read, then polling begins.
"""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace

from confluent_kafka import Consumer, KafkaException, TopicPartition

from trunkline.bus.accounting.pace import Pace
from trunkline.bus.intake import IDLE_SECONDS, QUIET_SECONDS
from trunkline.bus.kafka import KafkaSettings, records_of, translate
from trunkline.bus.names import Names
from trunkline.bus.runtime import RuntimeReport, SplitProgress
from trunkline.bus.source.positions import SplitPosition, summed
from trunkline.bus.source.publish import Publisher
from trunkline.bus.source.splits import splits_of
from trunkline.bus.source.splitwriter import SplitWriter
from trunkline.bus.states import reconnect_delay, retry_delay
from trunkline.bus.threads import in_own_thread
from trunkline.bus.topics import LEASE_PARTITIONS
from trunkline.core.cause import Cause
from trunkline.core.contracts import Progress, Source
from trunkline.core.errors import DefectError, RetriableError, TrunklineError
from trunkline.core.log import get_logger

log = get_logger(__name__)
TIMEOUT = 15.0
UNANSWERED_SECONDS = 5.0
"""A poll that takes so long is worth saying."""
LEASE_SECONDS = 0.5
"""How often the thread that holds leases looks whether it should leave; later only each IDLE_SECONDS."""


def lease_of(split: str) -> int:
    """The partition of the lease topic that stands for a split."""
    return zlib.crc32(split.encode()) % LEASE_PARTITIONS


class SourceRuntime:
    """Runs one polling source on one worker."""

    def __init__(
        self, settings: KafkaSettings, names: Names, pipeline: str, source: Source, publisher: Publisher, *, worker: str
    ) -> None:
        self._settings = settings
        self._names = names
        self._pipeline = pipeline
        self._source = source
        self._publisher = publisher
        self._worker = worker
        self._stop = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._failure: TrunklineError | None = None
        self._splits: Sequence[str] = ()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._positions: dict[str, SplitPosition] = {}
        self._paces: dict[str, tuple[Pace, Progress]] = {}
        self._causes: dict[str, Cause] = {}
        """By split, why it is not polled now."""
        self._asked: dict[str, tuple[float, float]] = {}
        """By split whose poll is under way, when that began: in Unix seconds, and by the monotonic clock."""
        self._polled = False
        """Whether a poll has ended well, and what it read is published."""
        self._leave = threading.Event()

    def report(self) -> RuntimeReport:
        """See `Runtime`. It is finished when every split of this worker has come to its end."""
        positions = list(self._positions.values())
        return RuntimeReport(
            counts=summed(positions),
            finished=bool(positions) and all(position.finished for position in positions),
            progress=[
                SplitProgress(split, known.done, known.total, known.what, self._left(split, pace, known))
                for split, (pace, known) in self._paces.items()
            ],
            cause=min((*self._causes.values(), *self._unanswered()), key=lambda one: one.since, default=None),
            untried=bool(self._tasks) and not self._polled,
        )

    def _unanswered(self) -> list[Cause]:
        """Of the splits whose poll takes long."""
        late = time.monotonic() - UNANSWERED_SECONDS
        return [
            Cause(
                "source.no_answer",
                f"the poll of {split} that is under way has not ended",
                hint="see whether the other system answers; the position is held, and it goes on by itself when it does",
                since=since,
            )
            for split, (since, begun) in self._asked.items()
            if begun < late and split not in self._causes
        ]

    def _left(self, split: str, pace: Pace, known: Progress) -> float | None:
        """How long the rest takes; nobody can tell of a split that stands still."""
        return None if split in self._causes else pace.seconds_for(known.total - known.done)

    def stop(self) -> None:
        """Asks `run` to finish the transaction under way and return."""
        self._stop.set()

    def pause(self) -> None:
        """Polls no more; the leases are kept."""
        self._running.clear()

    def check_topics(self) -> None:
        """See `Runtime`: it reads no topic."""

    def resume(self) -> None:
        """Polls on."""
        self._running.set()

    async def run(self) -> None:
        """Polls until `stop`. The source is open already. Raises `TrunklineError` when the pipeline can't go on."""
        self._loop = asyncio.get_running_loop()
        lease = asyncio.ensure_future(in_own_thread(self._hold_leases, f"lease-{self._pipeline}"))
        try:
            stopped = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait({stopped, lease}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
        finally:
            self._stop.set()
            await self._end_splits(list(self._tasks))
            self._leave.set()
            await lease
        if self._failure is not None:
            raise self._failure

    # --- leases: a thread ---

    def _hold_leases(self) -> None:
        try:
            self._splits = splits_of(self._source)
        except TrunklineError as error:
            self._fail(error)
            return
        consumer = self._settings.consumer(self._names.group(self._pipeline))
        try:
            consumer.subscribe(
                [self._names.leases], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )
            settled = time.monotonic() + QUIET_SECONDS
            while not self._leave.is_set():
                patience = LEASE_SECONDS if time.monotonic() < settled else IDLE_SECONDS
                # Nothing is ever read: what comes is an error, and without its leases a source would stand still.
                records_of(consumer.consume(1, patience), f"the leases of {self._pipeline} can't be held", member=True)
        except TrunklineError as error:
            self._fail(error)
        except KafkaException as error:
            self._fail(translate(error, f"the leases of {self._pipeline} can't be held"))
        finally:
            consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is ever read from the lease topic: any valid offset does.
        self._settings.take(consumer, [TopicPartition(part.topic, part.partition, 0) for part in partitions])
        consumer.pause(partitions)
        held = {part.partition for part in partitions}
        for split in self._splits:
            if lease_of(split) in held:
                self._loop.call_soon_threadsafe(self._begin_split, split)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {part.partition for part in partitions}
        splits = [split for split in list(self._tasks) if lease_of(split) in gone]
        try:
            asyncio.run_coroutine_threadsafe(self._end_splits(splits), self._loop).result(TIMEOUT)
        except Exception as error:  # noqa: BLE001 (an exception in a callback would be lost, and the lease is gone all the same)
            reason = str(error) or type(error).__name__
            log.warning(
                "splits did not end before their lease; who has it next fences them", splits=splits, reason=reason
            )
        self._settings.give_up(consumer, partitions)

    # --- splits: the event loop ---

    def _begin_split(self, split: str) -> None:
        if not self._stop.is_set() and split not in self._tasks:
            task = asyncio.create_task(self._run_split(split))
            self._tasks[split] = task
            task.add_done_callback(lambda _task: self._tasks.pop(split, None))

    async def _end_splits(self, splits: Sequence[str]) -> None:
        tasks = [self._tasks[split] for split in splits if split in self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=TIMEOUT)
        for split in splits:
            self._positions.pop(split, None)
            self._paces.pop(split, None)
            self._causes.pop(split, None)

    async def _run_split(self, split: str) -> None:
        failures = 0
        while not self._stop.is_set():
            writer = SplitWriter(self._settings, self._names, self._pipeline, split, self._publisher, self._worker)
            try:
                self._positions[split] = await writer.open()
                log.info("split begins", pipeline=self._pipeline, split=split, position=self._positions[split].position)
                while True:
                    failures = await self._poll_once(split, writer, failures)
                    self._causes.pop(split, None)
            except asyncio.CancelledError:
                raise
            except RetriableError as error:
                failures += 1
                lasting = time.time() - self._causes[split].since if split in self._causes else 0.0
                wait = max(error.after or 0.0, min(reconnect_delay(failures - 1), retry_delay(lasting)))
                log.warning(
                    "the source will go on later", pipeline=self._pipeline, split=split, wait=wait, reason=str(error)
                )
                self._stand_still(split, error, failures, wait)
                await asyncio.sleep(wait)
            except TrunklineError as error:
                self._fail(error)
                return
            except Exception as error:
                log.exception("the source raised", pipeline=self._pipeline)
                self._fail(DefectError(f"{type(error).__name__}: {error}", code="source.broken"))
                return
            finally:
                await asyncio.shield(writer.close())

    def _stand_still(self, split: str, error: RetriableError, failures: int, wait: float) -> None:
        """A split failed and goes on later."""
        now, before = time.time(), self._causes.get(split)
        since = before.since if before is not None else now
        cause = Cause.of(error, since=since, attempt=failures, next_try=now + wait)
        self._causes[split] = replace(
            cause, hint=cause.hint or f"the position of {split} is held, and it goes on by itself"
        )

    async def _poll_once(self, split: str, writer: SplitWriter, failures: int) -> int:
        """One poll and its transaction. Returns the count of failures in a row: 0, because this one went well."""
        await self._running.wait()
        known = self._positions[split]
        self._asked[split] = (time.time(), time.monotonic())
        try:
            batch = await self._source.poll(split, known.position)
        finally:
            del self._asked[split]
        if batch.events or batch.rejected or batch.position != known.position or batch.finished != known.finished:
            # Shielded: a transaction that has begun is ended, whatever happens to this task.
            written = asyncio.ensure_future(writer.write(batch, known))
            try:
                self._positions[split] = await asyncio.shield(written)
            except asyncio.CancelledError:
                await asyncio.wait({written}, timeout=TIMEOUT)
                raise
        else:
            await writer.rest()
        self._polled = True
        if batch.progress is not None:
            self._note_progress(split, batch.progress)
        if batch.position is not None:
            await self._source.committed(split, batch.position)
        if batch.pause or batch.finished:
            await asyncio.sleep(max(batch.pause, 1.0 if batch.finished else 0.0))
        return 0 if failures else failures

    def _note_progress(self, split: str, progress: Progress) -> None:
        pace = self._paces[split][0] if split in self._paces else Pace()
        pace.note(progress.done)
        self._paces[split] = (pace, progress)

    def _fail(self, error: TrunklineError) -> None:
        if self._failure is None:
            self._failure = error
        self._loop.call_soon_threadsafe(self._stop.set)
