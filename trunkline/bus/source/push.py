"""The push runtime: requests that came at the same time share one transaction, and each is answered after it committed.

Keys of accepted deliveries are written in the same transaction (`bus/source/deliveries.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from confluent_kafka import KafkaException, Producer

from trunkline.bus.accounting.trace import TraceBatch
from trunkline.bus.kafka import (
    UNUSED_SECONDS,
    KafkaSettings,
    RestingProducer,
    produce,
    transactional_producer,
    translate,
)
from trunkline.bus.names import Names
from trunkline.bus.runtime import RuntimeReport
from trunkline.bus.source.answers import Answer, body_of, unavailable
from trunkline.bus.source.deliveries import AcceptedDeliveries, digest
from trunkline.bus.source.ingress import Ingress
from trunkline.bus.source.positions import SplitPosition, position_key, read_positions, summed
from trunkline.bus.source.publish import Publisher
from trunkline.core.cause import Cause
from trunkline.core.contracts import PushSource, Reception, Request
from trunkline.core.errors import RetriableError, TrunklineError, UnavailableError
from trunkline.core.log import get_logger
from trunkline.core.metrics import counter, histogram

log = get_logger(__name__)
TIMEOUT = 8.0
MAX_WAITING = 2000
MAX_WAITING_BYTES = 64 * 2**20
MAX_TRANSACTION = 500
RECONNECT_SECONDS = 1.0
"""Between two looks for a broker that is away. The first is at once: senders are refused until it is found."""
CADENCE_SECONDS = 0.02
"""From the begin of one transaction to that of the next at the least. Requests that come meanwhile share the next one: a
transaction costs the broker as much as dozens of records. The first after a pause does not wait."""


@dataclass(slots=True)
class _Waiting:
    reception: Reception
    size: int
    answer: asyncio.Future[Answer]


class PushRuntime:
    """Runs one push source on one worker. Every worker serves it."""

    def __init__(
        self,
        settings: KafkaSettings,
        names: Names,
        pipeline: str,
        source: PushSource,
        publisher: Publisher,
        *,
        worker: str,
        accepted: AcceptedDeliveries,
        ingress: Ingress,
    ) -> None:
        self._settings = settings
        self._names = names
        self._pipeline = pipeline
        self._source = source
        self._publisher = publisher
        self._worker = worker
        self._split = f"push-{worker}"
        self._accepted = accepted
        self._ingress = ingress
        self._trace = TraceBatch(pipeline, "source", worker)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"push-{pipeline}")
        self._producers = RestingProducer(self._new_producer)
        self._position = SplitPosition()
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._paused = False
        self._ready = False
        self._cause: Cause | None = None
        """Why senders are refused now."""
        self._under_way: dict[str, asyncio.Future[Answer]] = {}
        self._requests = counter("trunkline_requests_total")
        self._refused = counter("trunkline_requests_refused_total")
        self._read = counter("trunkline_records_in_total").labels(pipeline)
        self._settled = counter("trunkline_records_settled_total")
        self._seconds = histogram("trunkline_transaction_seconds").labels(pipeline)

    @property
    def pipeline(self) -> str:
        """See `Receiver`."""
        return self._pipeline

    @property
    def source(self) -> PushSource:
        """The plug-in, for its path and its limits."""
        return self._source

    def report(self) -> RuntimeReport:
        """See `Runtime`. A push source never ends by itself."""
        return RuntimeReport(counts=summed([self._position]), ready=self.ready, cause=self._cause)

    @property
    def ready(self) -> bool:
        """Whether requests are taken: not before the producer is there, nor while the broker is away."""
        return self._ready and self._accepted.following

    @property
    def _publishing(self) -> bool:
        """Whether there is a producer. A request that comes while the broker is away finds that out, and begins to look for it."""
        return self._ready

    def stop(self) -> None:
        """Asks `run` to answer what waits and return."""
        self._stop.set()
        self._wake.set()

    def pause(self) -> None:
        """Answers 503 from now on."""
        self._paused = True

    def check_topics(self) -> None:
        """See `Runtime`: it reads no topic."""

    def resume(self) -> None:
        """Accepts again."""
        self._paused = False

    async def receive(self, request: Request) -> Answer:
        """Judges a request, publishes what it brings, and says what the sender is answered."""
        answer = await self._answer(request)
        self._requests.labels(self._pipeline, str(answer.status)).inc()
        return answer

    async def _answer(self, request: Request) -> Answer:
        if self._paused or self._stop.is_set():
            return unavailable("the source is not running")
        if not self._ready:
            return unavailable("the broker does not acknowledge")
        reception = await self._source.receive(request)
        if not reception.events and not reception.rejected:
            if reception.status >= 400:
                self._refused.labels(self._pipeline, str(reception.status)).inc()
                log.info(
                    "request refused",
                    pipeline=self._pipeline,
                    status=reception.status,
                    reason=reception.reason,
                    remote=request.remote,
                )
            body = reception.reply if reception.reply is not None else body_of({"error": reception.reason or "refused"})
            return Answer(reception.status, body, reception.reply_type, reception.headers)
        key = digest(reception.dedupe_key) if reception.dedupe_key is not None else None
        if key is not None:
            _identify(reception, key)
            if self._accepted.known(self._pipeline, key):
                self._position = replace(self._position, duplicates=self._position.duplicates + 1)
                return _repeated(reception)
            first = self._under_way.get(key)
            if first is not None:
                # The same delivery twice at once: what becomes of the first decides.
                answer = await asyncio.shield(first)
                return answer if answer.status >= 500 else _repeated(reception)
        if not self._publishing:
            return unavailable("the broker does not acknowledge")  # it went away while the request was judged
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(request.body) > MAX_WAITING_BYTES:
            return unavailable("too many requests wait for the broker")
        waiting = _Waiting(reception, len(request.body), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._waiting_bytes += waiting.size
        if key is not None:
            self._under_way[key] = waiting.answer
        self._wake.set()
        try:
            async with asyncio.timeout(TIMEOUT + 2):
                # Shielded: a sender that goes away does not undo what is being published.
                return await asyncio.shield(waiting.answer)
        except TimeoutError:
            return unavailable("the broker does not acknowledge")
        finally:
            if key is not None:
                self._under_way.pop(key, None)

    async def run(self) -> None:
        """Publishes until `stop`. The source is open already."""
        failures = 0
        loop = asyncio.get_running_loop()
        try:
            await self._ingress.add(self)
            await loop.run_in_executor(self._thread, self._accepted.load)
            while not self._stop.is_set():
                try:
                    if not self._ready:
                        await loop.run_in_executor(self._thread, self._open, failures > 0)
                    self._ready, self._cause = True, None
                    await self._woken(loop)
                    while self._waiting:
                        begun = loop.time()
                        await self._publish_some(loop)
                        await asyncio.sleep(max(0.0, begun + CADENCE_SECONDS - loop.time()))
                    failures = 0
                except (RetriableError, UnavailableError) as error:
                    # What a person must mend (a right, a topic) is raised: the source is FAILED with it.
                    self._ready = False
                    wait = RECONNECT_SECONDS if failures else 0.0
                    failures += 1
                    self._refuse(error, failures, wait)
                    log.warning("the broker did not acknowledge", pipeline=self._pipeline, wait=wait, reason=str(error))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stop.wait(), wait)
        finally:
            self._ingress.remove(self)
            self._ready = False
            self._refuse_waiting("the source stops")
            self._thread.shutdown(wait=False)

    def _refuse(self, error: RetriableError | UnavailableError, failures: int, wait: float) -> None:
        """Senders are told to come again until the broker acknowledges."""
        now, before = time.time(), self._cause
        since = before.since if before is not None else now
        cause = Cause.of(error, since=since, attempt=failures, next_try=now + wait)
        self._cause = replace(cause, hint=cause.hint or "senders are answered 503 until the broker acknowledges")

    async def _woken(self, loop: asyncio.AbstractEventLoop) -> None:
        """Returns when there is something to publish or to end; meanwhile the producer may rest."""
        while not self._wake.is_set():
            try:
                async with asyncio.timeout(UNUSED_SECONDS + 1 if not self._producers.resting else None):
                    await self._wake.wait()
            except TimeoutError:
                await loop.run_in_executor(self._thread, self._producers.rest)
        self._wake.clear()

    async def _publish_some(self, loop: asyncio.AbstractEventLoop) -> None:
        some, self._waiting = self._waiting[:MAX_TRANSACTION], self._waiting[MAX_TRANSACTION:]
        self._waiting_bytes -= sum(waiting.size for waiting in some)
        try:
            answers, self._position = await loop.run_in_executor(self._thread, self._write, some)
        except TrunklineError:
            for waiting in some:
                if not waiting.answer.done():
                    waiting.answer.set_result(unavailable("the broker does not acknowledge"))
            self._refuse_waiting("the broker does not acknowledge")
            raise
        # I7: who sent something is told that it was accepted only after the transaction with it committed.
        for waiting, answer in zip(some, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)

    def _refuse_waiting(self, reason: str) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for one in waiting:
            if not one.answer.done():
                one.answer.set_result(unavailable(reason))

    # --- the thread ---

    def _open(self, again: bool) -> None:
        self._producers.renew()
        if again:
            # The transaction that failed is settled now and may have committed: its senders were refused, and come again.
            self._accepted.catch_up()
        self._position = read_positions(self._settings, self._names).get((self._pipeline, self._split), SplitPosition())

    def _new_producer(self) -> Producer:
        transactional_id = self._names.transactional_id(self._pipeline, self._worker, "push")
        return transactional_producer(self._settings, transactional_id, timeout=TIMEOUT, linger_ms=0)

    def _write(self, some: list[_Waiting]) -> tuple[list[Answer], SplitPosition]:
        producer = self._producers.use()
        begun = time.monotonic()
        answers: list[Answer] = []
        counts = {"delivered": 0, "filtered": 0, "dead": 0}
        index, outputs, duplicates = self._position.read, 0, 0
        accepted: dict[str, float] = {}
        try:
            producer.begin_transaction()
            for waiting in some:
                reception = waiting.reception
                key = digest(reception.dedupe_key) if reception.dedupe_key is not None else None
                if key is not None and (key in accepted or self._accepted.known(self._pipeline, key)):
                    duplicates += 1
                    answers.append(_repeated(reception))
                    continue
                published = [self._publisher.publish(event) for event in reception.events]
                published += [self._publisher.quarantine(rejected) for rejected in reception.rejected]
                for one in published:
                    for output in one.outputs:
                        produce(producer, output.topic, output.value, output.key, output.headers)
                    counts[one.outcome] += 1
                    outputs += len(one.outputs) if one.outcome == "delivered" else 0
                    self._trace.add(
                        f"source:{self._pipeline}/{self._split}", 0, index, one.correlation_id, one.outcome, one.detail
                    )
                    index += 1
                correlation = published[0].correlation_id
                identity = _own_id(reception) or correlation
                if key is not None:
                    record_key, record = self._accepted.record(self._pipeline, key, reception.dedupe_window, identity)
                    producer.produce(self._names.deliveries, record, record_key)
                    accepted[key] = reception.dedupe_window
                answer = {"id": identity, "correlation_id": correlation}
                if all(one.outcome == "dead" for one in published):
                    answer["quarantined"] = published[0].detail or "it does not fit its schema"
                body = reception.reply if reception.reply is not None else body_of(answer)
                headers = {**reception.headers, "X-Correlation-ID": correlation}
                answers.append(Answer(reception.status, body, reception.reply_type, headers))
            for record in self._trace.drain():
                producer.produce(self._names.trace, record)
            position = replace(
                self._position,
                read=index,
                delivered=self._position.delivered + counts["delivered"],
                filtered=self._position.filtered + counts["filtered"],
                dead=self._position.dead + counts["dead"],
                outputs=self._position.outputs + outputs,
                duplicates=self._position.duplicates + duplicates,
            )
            # I6: records, the keys of their deliveries and the count of them are one transaction.
            producer.produce(self._names.positions, position.to_record(), position_key(self._pipeline, self._split))
            producer.commit_transaction(TIMEOUT)
        except KafkaException as error:
            self._trace.drain()
            raise translate(error, f"the events of {self._pipeline} can't be written") from error
        for key, window in accepted.items():
            self._accepted.add(self._pipeline, key, window)
        self._seconds.observe(time.monotonic() - begun)
        self._read.inc(index - self._position.read)
        for outcome, count in counts.items():
            if count:
                self._settled.labels(self._pipeline, outcome).inc(count)
        return answers, position


def _repeated(reception: Reception) -> Answer:
    """What the sender of a delivery that came before is told, with the id that the delivery itself brings."""
    own = _own_id(reception)
    return Answer(200, body_of({"duplicate": True, "id": own} if own else {"duplicate": True}))


def _identify(reception: Reception, key: str) -> None:
    """Events without an id get one that follows from their delivery's key.

    Workers hear of each other's deliveries a moment later: two that get one at the same time both publish it. Its events have
    the same ids in both, hence the same idempotency keys further on, and count once where a sink is idempotent.
    """
    for number, event in enumerate(reception.events):
        if event.id is None:
            event.id = f"{key}.{number}"


def _own_id(reception: Reception) -> str | None:
    return next((event.id for event in reception.events if event.id), None)
