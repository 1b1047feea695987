"""Delivering gapless ranges: for sinks whose effect is a file or a job, named by the range so that it is built again alike.

Before the effect the planned end of the range is committed as metadata of the unchanged offset. After a crash the plan says
which records belong to the range: the same records under the same name, so the same file.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from trunkline.bus.deadletters import Failure
from trunkline.bus.delivery.calls import verdicts_of
from trunkline.bus.delivery.freeze import Freeze
from trunkline.bus.delivery.gates import HOLD_LIMIT, Gate, Passage
from trunkline.bus.delivery.outgoing import Delivery, Ticket
from trunkline.bus.delivery.retry import backoff
from trunkline.bus.delivery.trouble import UNANSWERED_SECONDS, Trouble, no_answer
from trunkline.bus.intake import Assigned, Partition
from trunkline.core.cause import Cause
from trunkline.core.contracts import Batch, Sink
from trunkline.core.errors import DefectError, FatalError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.manifests.models import DeliverySpec
from trunkline.core.metrics import counter, histogram
from trunkline.core.verdicts import Dead, Retry, Unknown, Verdict

log = get_logger(__name__)
GATE_SECONDS = 1.0
"""How long a range waits at a gate before it looks whether its partition is still ours."""

PlanCommit = Callable[[Partition, int, int], Awaitable[bool]]
"""Commits that a partition's range from the first to the second offset is about to be written.

False when the partition is no longer ours.
"""


@dataclass(slots=True, eq=False)
class _Lane:
    """One partition: what waits, and the end of a range that was planned before a crash."""

    waiting: deque[Delivery] = field(default_factory=deque)
    size: int = 0
    planned: int | None = None
    read_to: int = -1
    """The offset up to which the partition was read, filtered and dead records included."""
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    calling: bool = False
    """Whether its range is being written, up to its settlement; not while the range waits."""
    called_at: float = 0.0
    """When the call that is under way began, on the monotonic clock."""
    gone: bool = False
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a range that waits need not wait any more."""


class ContiguousDelivering:
    """The deliveries of one sink pipeline whose sink declares `contiguous`. Runs on the event loop."""

    def __init__(
        self,
        sink: Sink,
        spec: DeliverySpec,
        pipeline: str,
        *,
        gates: Sequence[Gate],
        commit_plan: PlanCommit,
        failed: Callable[[TrunklineError], None],
    ) -> None:
        self._sink = sink
        self._spec = spec
        self._pipeline = pipeline
        self._commit_plan = commit_plan
        self._failed = failed
        self._count = min(sink.promises.max_batch, spec.batch.count or sink.promises.max_batch)
        self._patience = max(spec.timeout, sink.promises.patience)
        self._lanes: dict[Partition, _Lane] = {}
        self._closing = False
        self._opened = asyncio.Event()
        self._passage = Passage(gates)
        self._trouble = Trouble(spec.retry.attempts)
        self._answered_at = 0.0
        """When a call ended last, on the monotonic clock."""
        self._paused = False
        self._freeze = Freeze()
        self._leaving: set[_Lane] = set()
        """What is still being written of partitions that went away."""
        self._attempts = counter("trunkline_delivery_attempts_total")
        self._seconds = histogram("trunkline_delivery_seconds").labels(pipeline)

    @property
    def held(self) -> int:
        """Records taken and not settled yet."""
        return sum(len(lane.waiting) for lane in list(self._lanes.values()))

    @property
    def held_bytes(self) -> int:
        """The size of those."""
        return sum(lane.size for lane in list(self._lanes.values()))

    @property
    def answered(self) -> bool:
        """See `Deliveries`."""
        return self._answered_at > 0.0

    def open(self) -> None:
        """See `Deliveries`."""
        self._passage.open(self._opened.set)

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """See `Deliveries`."""
        for one in partitions:
            self.begin(one.partition, one.plan.last if one.plan is not None else None)

    def begin(self, partition: Partition, planned: int | None) -> None:
        """A partition came to us; `planned` is the end of the range that was under way when it was left."""
        self._lanes[partition] = _Lane(planned=planned)

    def submit(self, deliveries: Sequence[Delivery], read_to: Mapping[Partition, int], /) -> None:
        """See `Deliveries`."""
        for delivery in deliveries:
            lane = self._lanes.get((delivery.event.topic, delivery.event.partition))
            if lane is not None:
                delivery.ready_at = time.monotonic()
                lane.waiting.append(delivery)
                lane.size += delivery.size
        for partition, offset in read_to.items():
            if partition in self._lanes:
                self._lanes[partition].read_to = offset
        for partition in list(self._lanes):
            self._pump(partition)

    def pause(self, paused: bool) -> None:
        """Starts no range while paused."""
        self._paused = paused
        for partition in list(self._lanes):
            self._pump(partition)

    def freeze(self) -> None:
        """See `Deliveries`."""
        self._freeze.begin()

    def forget(self, gone: Callable[[Ticket], bool], partitions: Collection[Partition], /) -> None:
        """See `Deliveries`. A range that is being written is written to its end."""
        self._trouble.forget(gone)
        for partition in partitions:
            if partition in self._lanes:
                self._drop(partition)
        self._freeze.end()
        for partition in list(self._lanes):
            self._pump(partition)

    def under_way(self, of: Callable[[Ticket], bool]) -> bool:
        """See `Deliveries`."""
        lanes = [*list(self._lanes.values()), *list(self._leaving)]
        return any(lane.calling and lane.waiting and of(lane.waiting[0].ticket) for lane in lanes)

    def cause(self) -> Cause | None:
        """See `Deliveries`. A call may take as long as the sink says that its jobs take."""
        if not self.held:
            return None
        found, failing = self._passage.cause(), self._trouble.cause()
        if found is not None or failing is not None:
            return found or failing
        begun = [lane.called_at for lane in self._lanes.values() if lane.calling]
        if not begun or self._patience > self._spec.timeout:
            return None
        quiet = time.monotonic() - max(min(begun), self._answered_at)
        return no_answer(quiet, self._patience, self.held) if quiet >= UNANSWERED_SECONDS else None

    async def drain(self, deadline: float) -> None:
        """Starts nothing more and waits for the ranges under way, at most `deadline` seconds."""
        self._closing = True
        self._passage.close()
        tasks = [lane.task for lane in (*self._lanes.values(), *self._leaving) if lane.task is not None]
        for lane in self._lanes.values():
            lane.ending.set()
            if lane.timer is not None:
                lane.timer.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=deadline)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=5.0)

    def _drop(self, partition: Partition) -> None:
        lane = self._lanes.pop(partition)
        lane.gone = True
        lane.ending.set()
        if lane.task is not None:
            self._leaving.add(lane)
        if lane.timer is not None:
            lane.timer.cancel()

    def _pump(self, partition: Partition) -> None:
        lane = self._lanes[partition]
        if lane.task is not None or self._closing or self._paused or self._freeze.holds or not lane.waiting:
            return
        size = self._range_size(lane)
        if size == 0:
            return
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        lane.task = asyncio.create_task(self._write(partition, lane, size))
        lane.task.add_done_callback(lambda task: self._ended(partition, lane, task))

    def _range_size(self, lane: _Lane) -> int:
        """How many of the waiting records make the next range; 0 while it should wait for more."""
        if lane.planned is not None:
            if lane.read_to < lane.planned:
                return 0
            size = sum(1 for delivery in lane.waiting if delivery.event.offset <= lane.planned)
            if size:
                return size
            lane.planned = None  # every record of the range has expired or was settled
        if len(lane.waiting) >= self._count:
            return self._count
        if lane.size >= self._spec.batch.bytes:
            total = 0
            for index, delivery in enumerate(lane.waiting):
                total += delivery.size
                if total >= self._spec.batch.bytes:
                    return index + 1
        age = time.monotonic() - lane.waiting[0].ready_at
        if age >= self._spec.batch.age:
            return len(lane.waiting)
        if lane.timer is None:
            partition = (lane.waiting[0].event.topic, lane.waiting[0].event.partition)
            lane.timer = asyncio.get_running_loop().call_later(
                self._spec.batch.age - age + 0.001, self._timer_fired, partition
            )
        return 0

    def _timer_fired(self, partition: Partition) -> None:
        lane = self._lanes.get(partition)
        if lane is not None:
            lane.timer = None
            self._pump(partition)

    async def _write(self, partition: Partition, lane: _Lane, size: int) -> None:
        batch = [lane.waiting[index] for index in range(size)]
        first, last = batch[0].event, batch[-1].event
        # I5: the range is committed before its effect, on the unchanged offset.
        if not await self._commit_plan(partition, first.offset, last.offset):
            return
        name = f"{self._pipeline}-{first.topic_id}-{first.partition}-{first.offset}-{last.offset}"
        attempt = counted = 0
        rebuilt = lane.planned is not None
        while not lane.gone and not self._closing:
            if not await self._passed(lane, size):
                return
            attempt += 1
            lane.calling, lane.called_at = True, time.monotonic()
            verdicts, excused = await self._called(batch, name, attempt, rebuilt)
            counted += not excused
            waits = [verdict for verdict in verdicts if isinstance(verdict, (Retry, Unknown))]
            for verdict in verdicts:
                self._attempts.labels(self._pipeline, type(verdict).__name__.lower()).inc()
            if not waits:
                self._trouble.settled(batch[0])
                self._settle(lane, batch, verdicts, attempt)
                return
            reason = waits[0].reason
            if counted >= self._spec.retry.attempts:
                # A range is never a dead letter: the place that takes it is down, not the records bad.
                raise FatalError(
                    f"{name} could not be written in {attempt} attempts; the last: {reason}", code="sink.exhausted"
                )
            after = max((verdict.after or 0.0 for verdict in waits if isinstance(verdict, Retry)), default=0.0)
            wait = max(backoff(self._spec.retry, max(counted, 1)), min(after, HOLD_LIMIT))
            log.info(
                "range will be tried again", pipeline=self._pipeline, name=name, wait=round(wait, 3), reason=reason
            )
            self._note(batch[0], waits[0], reason, counted, wait)
            lane.calling = False
            await _set_within(lane.ending, wait)

    def _note(self, first: Delivery, verdict: Retry | Unknown, reason: str, attempts: int, wait: float) -> None:
        """The range that begins with a record failed, and is tried again."""
        now = time.time()
        first.attempts = attempts
        first.first_failed_at = first.first_failed_at if first.first_failed_at is not None else now
        self._trouble.failed(first, verdict, reason, at=now, wait=wait)

    async def _passed(self, lane: _Lane, size: int) -> bool:
        """Waits until the gates let a call begin, and tells them that it does. False when it must not begin any more."""
        while not lane.gone and not self._closing:
            wait = GATE_SECONDS if self._freeze.holds else self._passage.delay(size)
            if wait <= 0.0:
                self._passage.started(size)
                return True
            self._opened.clear()
            await _set_within(self._opened, min(wait, GATE_SECONDS))
        return False

    async def _called(
        self, batch: list[Delivery], name: str, attempt: int, rebuilt: bool
    ) -> tuple[Sequence[Verdict], bool]:
        """The verdicts of one call, and whether it is excused as an attempt."""
        events = [delivery.event for delivery in batch]
        verdicts: Sequence[Verdict] = ()
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                verdicts = await verdicts_of(self._sink, Batch(events, name, attempt, rebuilt), self._pipeline)
        except TimeoutError:
            verdicts = [Unknown(f"no answer within {self._patience:g} s", "sink.timeout")] * len(batch)
        except TrunklineError:
            self._closing = True  # at once: no other range is written before this one has ended
            raise
        finally:
            excused = self._passage.ended(events, verdicts)
        self._answered_at = time.monotonic()
        self._seconds.observe(self._answered_at - begun)
        return verdicts, excused

    def _settle(self, lane: _Lane, batch: list[Delivery], verdicts: Sequence[Verdict], attempt: int) -> None:
        for delivery, verdict in zip(batch, verdicts, strict=True):
            lane.waiting.popleft()
            lane.size -= delivery.size
            if isinstance(verdict, Dead):
                delivery.ticket.save_dead(Failure("SINK", verdict.code, verdict.reason, attempts=attempt))
            else:
                delivery.ticket.settle("delivered", detail=getattr(verdict, "reference", None))
        lane.planned = None

    def _ended(self, partition: Partition, lane: _Lane, task: asyncio.Task[None]) -> None:
        lane.task, lane.calling = None, False
        self._leaving.discard(lane)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._closing = True
            broken = DefectError(f"{type(error).__name__}: {error}", code="sink.broken")
            self._failed(error if isinstance(error, TrunklineError) else broken)
        elif not lane.gone and partition in self._lanes:
            self._pump(partition)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
