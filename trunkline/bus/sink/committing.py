"""A sink's commits: how far each partition is settled, and the plans of ranges that are about to be written.

Deliveries on the event loop ask for a plan and wait; everything else happens on the polling thread.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from confluent_kafka import Consumer, KafkaError, KafkaException

from trunkline.bus.delivery.tickets import Tickets, Work
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings, LazyProducer, translate
from trunkline.bus.knownoffsets import KnownOffsets
from trunkline.core.cause import Cause
from trunkline.core.errors import RetriableError, TrunklineError, UnavailableError
from trunkline.core.log import get_logger

log = get_logger(__name__)
COMMIT_SECONDS = 0.2
REFUSED_SECONDS = 30.0
"""A client that found no coordinator for so long may never find it again, though the broker is back: it is replaced."""
DRAIN_SECONDS = 20.0
"""How long deliveries and dead letters on their way may take to settle."""


class Committing:
    """The commits of one sink pipeline. `failed` stops the pipeline, and `stopped` tells that something did."""

    def __init__(
        self,
        pipeline: str,
        settings: KafkaSettings,
        tickets: Tickets,
        producer: LazyProducer,
        *,
        known: KnownOffsets,
        group_member: Callable[[], Consumer],
        failed: Callable[[TrunklineError], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._tickets = tickets
        self._producer = producer
        self._known = known
        self._group_member = group_member
        self._failed = failed
        self._stopped = stopped
        self._plans: queue.SimpleQueue[tuple[Partition, int, int, Future[bool]]] = queue.SimpleQueue()
        self._last = 0.0
        self._refused_since: float | None = None
        self._refusal: Cause | None = None
        """Why no commit is taken now."""

    @property
    def cause(self) -> Cause | None:
        """Why offsets can't be committed now; None where they can. From any thread."""
        return self._refusal

    # --- what is settled ---

    def commit_if_due(self) -> None:
        """Commits what moved, a few times a second; where the broker is away, later.

        Raises RetriableError when no commit was taken for REFUSED_SECONDS.
        """
        now = time.monotonic()
        if now - self._last >= COMMIT_SECONDS:
            try:
                self.commit(all_of_them=False)
                self._refused_since = self._refusal = None
            except KafkaException as error:
                refusal = translate(error, "offsets can't be committed now")
                if not isinstance(refusal, (RetriableError, UnavailableError)):
                    raise
                if self._refusal is None:
                    self._refusal = Cause.of(refusal, since=time.time())
                    log.warning("offsets will be committed later", pipeline=self._pipeline, reason=refusal.message)
                self._refused_since = self._refused_since if self._refused_since is not None else now
                if time.monotonic() - self._refused_since > REFUSED_SECONDS:
                    raise RetriableError(
                        f"no commit was taken for {REFUSED_SECONDS:g} s: {error.args[0].str()}",
                        code="kafka.unavailable",
                    ) from error
            self._last = time.monotonic()

    def commit(self, *, all_of_them: bool = True, only: Sequence[Partition] | None = None) -> None:
        """Commits how far each partition is settled without a gap. Raises KafkaException."""
        commits = self._tickets.due(all_of_them=all_of_them, only=only)
        if not commits:
            return
        try:
            # I28: each commit is waited for. Of two under way, librdkafka may send the older one again behind the newer one when
            # the broker comes back, and the group would go backwards.
            done = self._settings.commit(self._group_member(), commits)
        except KafkaException as error:
            if not _not_ours(error):
                raise
        else:
            self._tickets.committed(done or [])
            self._known.advance({(one.topic, one.partition): one.offset for one in done or [] if one.error is None})

    # --- what is planned ---

    async def plan(self, partition: Partition, first: int, last: int) -> bool:
        """Has the polling thread commit that a range is about to be written. On the event loop; see `PlanCommit`."""
        answer: Future[bool] = Future()
        self._plans.put((partition, first, last, answer))
        return await asyncio.wrap_future(answer)

    @property
    def asked(self) -> bool:
        """Whether somebody waits for a plan."""
        return not self._plans.empty()

    def answer(self) -> None:
        """Commits the plans that were asked for."""
        while not self._plans.empty():
            partition, first, last, answer = self._plans.get()
            if answer.set_running_or_notify_cancel():
                answer.set_result(self._write_plan(partition, first, last))

    def _write_plan(self, partition: Partition, first: int, last: int) -> bool:
        work = self._tickets.works.get(partition)
        if work is None or not work.current:
            return False
        if not self._settled_before(work, first):
            self._failed(
                RetriableError(f"the dead letters before {partition[0]}[{partition[1]}]@{first} are not acknowledged")
            )
            return False
        try:
            self._settings.commit(self._group_member(), [self._tickets.planned(work, last)])
        except KafkaException as error:
            if _not_ours(error):
                return False
            self._failed(translate(error, "a planned range can't be committed"))
            return False
        return True

    def _settled_before(self, work: Work, first: int) -> bool:
        """Waits until everything before a range is settled and counted: only dead letters on their way can be open there.

        A commit that stood before an earlier range would have that one built again after a crash, as a part of this one.
        """
        deadline = time.monotonic() + DRAIN_SECONDS
        while not self._tickets.settled_before(work, first):
            if time.monotonic() > deadline or self._stopped():
                return False
            self._producer.poll(0.02)
        return True


def _not_ours(error: KafkaException) -> bool:
    """Whether a commit failed because the partition or the membership is gone: normal after a rebalance."""
    return error.args[0].code() in {
        KafkaError._STATE,  # noqa: SLF001
        KafkaError._NO_OFFSET,  # noqa: SLF001
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
