"""The fallback of a sink: another sink gets a record when the first one could not be reached several times."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from trunkline.bus.delivery.breaker import Breaker
from trunkline.bus.delivery.calls import verdicts_of
from trunkline.bus.delivery.gates import Gate, Passage
from trunkline.core.contracts import Batch, PluginContext, Promises, Sink
from trunkline.core.event import Event
from trunkline.core.metrics import counter
from trunkline.core.settings import Settings
from trunkline.core.verdicts import Ok, Retry, Unknown, Verdict

DETAIL = "fallback"
"""What the trace says of a record that the fallback took, before the reference that it gave."""


class FallbackSink(Sink):
    """Two sinks as one: what the first fails to settle `after` times (`Retry`, `Unknown`), or can't be asked for, goes to the other.

    The breaker of the first one's account is asked here and not by the engine: open, it sends records to the fallback at once
    instead of holding them. A record that either sink refuses (`Dead`) is a dead letter.
    """

    settings_type = Settings
    summary = "A sink and its fallback."

    def __init__(
        self, first: Sink, other: Sink, *, after: int, breaker: Breaker | None, other_gates: Sequence[Gate]
    ) -> None:
        super().__init__(None)
        self.promises = Promises(
            idempotent=first.promises.idempotent and other.promises.idempotent,
            max_batch=min(first.promises.max_batch, other.promises.max_batch),
        )
        self._first = first
        self._other = other
        self._after = after
        self._breaker = breaker
        self._other_passage = Passage(other_gates)
        self._failures: WeakKeyDictionary[Event, int] = WeakKeyDictionary()
        self._pipeline = ""
        self.taken = 0
        """Records that the other one took."""

    async def open(self, context: PluginContext) -> None:
        """Opens both."""
        self._pipeline = context.pipeline
        self._other_passage.open(lambda: None)
        await self._first.open(context)
        await self._other.open(context)

    async def close(self) -> None:
        """Closes both."""
        self._other_passage.close()
        try:
            await self._first.close()
        finally:
            await self._other.close()

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """The verdicts of the first sink, and of the other for the records that it failed too often."""
        verdicts = list(await self._by_first(batch))
        failed = [index for index, event in enumerate(batch.events) if self._has_failed(event, verdicts[index])]
        if failed:
            events = [batch.events[index] for index in failed]
            for index, verdict in zip(failed, await self._by_other(Batch(events, attempt=batch.attempt)), strict=True):
                verdicts[index] = verdict
        return verdicts

    async def _by_first(self, batch: Batch) -> Sequence[Verdict]:
        breaker = self._breaker
        if breaker is None:
            return await verdicts_of(self._first, batch, self._pipeline)
        if breaker.delay(len(batch.events)) > 0.0:
            for event in batch.events:
                self._failures[event] = self._after
            return [Retry("the breaker is open", code="breaker.open")] * len(batch.events)
        verdicts: Sequence[Verdict] = ()
        breaker.started(len(batch.events))
        try:
            verdicts = await verdicts_of(self._first, batch, self._pipeline)
        finally:
            breaker.ended(batch.events, verdicts)
        return verdicts

    def _has_failed(self, event: Event, verdict: Verdict) -> bool:
        """Counts a failure. Whether it is the one too many."""
        if not isinstance(verdict, (Retry, Unknown)):
            return False
        self._failures[event] = failures = self._failures.get(event, 0) + 1
        return failures >= self._after

    async def _by_other(self, batch: Batch) -> Sequence[Verdict]:
        passage = self._other_passage
        wait = passage.delay(len(batch.events))
        if wait > 0.0:
            why = passage.cause()
            reason = f": {why.reason}" if why is not None else ""
            return [Retry(f"the fallback's account takes nothing now either{reason}", code="fallback.held")] * len(
                batch.events
            )
        verdicts: Sequence[Verdict] = ()
        passage.started(len(batch.events))
        try:
            verdicts = await verdicts_of(self._other, batch, self._pipeline)
        finally:
            passage.ended(batch.events, verdicts)
        taken = sum(isinstance(verdict, Ok) for verdict in verdicts)
        self.taken += taken
        counter("trunkline_fallback_records_total").labels(self._pipeline).inc(taken)
        return [
            Ok(DETAIL if verdict.reference is None else f"{DETAIL}: {verdict.reference}")
            if isinstance(verdict, Ok)
            else verdict
            for verdict in verdicts
        ]
