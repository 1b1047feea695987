"""Which keys are held back, and when their first records are tried again. All of it on the event loop; knows no Kafka.

Of a held key one record is in memory while it is tried, a few more when the key heals; the rest lie in the store. Every record
that is read of a held key goes behind the others, also while the last of them is under way, so none overtakes another.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from trunkline.bus.deadletters import Failure
from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.delivery.retry import backoff
from trunkline.bus.parking.decisions import Decision
from trunkline.bus.parking.orders import Carry, Hold, Key, Load, Note, Order, ParkTicket, Settle
from trunkline.bus.parking.records import BEHIND
from trunkline.core.cause import Cause
from trunkline.core.log import get_logger
from trunkline.core.manifests.models import DeliverySpec
from trunkline.core.metrics import counter, gauge

log = get_logger(__name__)
AHEAD = 32
"""How many records of a key that heals are brought at once."""
UNSAVED_SECONDS = 0.2
"""When to ask again for records whose saving is still under way."""


class Timer(Protocol):
    """What can be cancelled."""

    def cancel(self) -> None:
        """Not any more."""


Later = Callable[[float, Callable[[], None]], Timer]
"""Calls a function after so many seconds."""


def on_this_loop(seconds: float, function: Callable[[], None]) -> Timer:
    """By the clock of the running event loop."""
    return asyncio.get_running_loop().call_later(seconds, function)


@dataclass(slots=True)
class _Held:
    """A key that is held back."""

    count: int = 0
    """Its records that are parked, or on their way to be."""
    busy: bool = False
    """Whether its head is being brought, tried or decided on: it has one such thing at a time."""
    since: float = 0.0
    """Since when it is held back, in Unix seconds, as far as that is known."""
    tries: int = 0
    """How often its head was tried here, for the next wait."""
    head: int = -1
    """The sequence of the head that `attempts` are of."""
    attempts: int = 0
    """How often its head was tried in all."""
    failure: Failure | None = None
    """Why its head failed last."""
    next_try: float | None = None
    """When its head is tried again, in Unix seconds."""
    healing: bool = False
    """Whether the last thing that happened to it was a success."""
    timer: Timer | None = None
    brought: deque[Delivery] = field(default_factory=deque)
    decisions: deque[Decision] = field(default_factory=deque)

    def rest(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None
        self.brought.clear()


class Parking:
    """The held keys of one pipeline on one worker: what `Delivering` asks of every record, and what tries the held ones again.

    `limit` is how many keys are tried at once, `ask` hands an order to the polling thread.
    """

    def __init__(
        self,
        spec: DeliverySpec,
        pipeline: str,
        *,
        limit: int,
        ask: Callable[[Order], None],
        later: Later = on_this_loop,
    ) -> None:
        self._spec = spec
        self._pipeline = pipeline
        self._limit = limit
        self._ask = ask
        self._later = later
        self._deliver: Callable[[Sequence[Delivery]], None] = lambda _deliveries: None
        self._keys: dict[Key, _Held] = {}
        self._due: deque[Key] = deque()
        self._busy = 0
        self._closing = False
        self._leaving: frozenset[int] = frozenset()
        self._told: Key | None = None
        """The key whose head failed last."""
        self._heard: dict[str, int] = {}
        """The partition of each decision that was heard of: they come by two ways."""
        self.pending = 0
        """Records that are on their way into the park, and not saved yet."""
        self.records = 0
        """Records that wait, those on their way included."""
        self._settled = counter("trunkline_parked_settled_total")

    @property
    def keys(self) -> int:
        """How many keys are held back."""
        return len(self._keys)

    def cause(self) -> Cause | None:
        """That keys are held back, and the last error of a head; None where none is."""
        if not self._keys:
            return None
        key = self._told if self._told in self._keys else next(iter(self._keys))
        assert key is not None
        held, failure = self._keys[key], self._keys[key].failure
        name = key[1].decode("utf-8", "backslashreplace")
        last = f"; of {name!r} {failure.reason}" if failure is not None else ""
        oldest = next(iter(self._keys.values()))
        return Cause(
            "parked.keys",
            f"{len(self._keys)} keys are held back, with {self.records} records{last}",
            hint=f"other keys flow; `trunkline parked ls {self._pipeline}` lists them, `parked retry`, `drop` and `edit` decide",
            since=oldest.since,
            attempt=held.attempts or None,
            next_try=held.next_try,
            error_code=failure.last[0] if failure is not None and failure.last is not None else None,
            parked_keys=len(self._keys),
            parked_records=self.records,
        )

    def open(self) -> None:
        """The pipeline runs: from now on its metrics tell of these keys."""
        gauge("trunkline_parked_records").labels(self._pipeline).set_function(lambda: self.records)
        gauge("trunkline_parked_keys").labels(self._pipeline).set_function(lambda: len(self._keys))

    def attach(self, deliver: Callable[[Sequence[Delivery]], None]) -> None:
        """Says where records that are tried again go."""
        self._deliver = deliver

    def close(self) -> None:
        """Tries nothing more."""
        self._closing = True
        for held in self._keys.values():
            held.rest()

    # --- what `Delivering` asks ---

    @property
    def holding(self) -> bool:
        """Whether any key is held back: while none is, nobody has to ask `takes`."""
        return bool(self._keys)

    def __call__(self, delivery: Delivery, failure: Failure) -> None:
        """See `Exhausted`: the key is held back from now on. A record without a key has nothing to hold back: a dead letter."""
        ticket = delivery.ticket
        if isinstance(ticket, ParkTicket):
            self._failed_again(ticket, failure)
        elif delivery.event.raw_key is None:
            ticket.save_dead(failure)
        else:
            log.warning("a key is parked", pipeline=self._pipeline, place=delivery.event.place, reason=failure.reason)
            self._hold((delivery.event.partition, delivery.event.raw_key), delivery, failure)

    def takes(self, delivery: Delivery) -> bool:
        """See `Exhausted`: whether the record's key is held back; then it goes behind what waits."""
        # I15: while a key is held back, what comes of it goes behind what waits, to the last record.
        raw_key = delivery.event.raw_key
        if raw_key is None or isinstance(delivery.ticket, ParkTicket):
            return False
        key = (delivery.event.partition, raw_key)
        if key not in self._keys:
            return False
        self._hold(key, delivery, Failure("SINK", BEHIND, "an earlier record of its key waits", attempts=0))
        return True

    def _hold(self, key: Key, delivery: Delivery, failure: Failure) -> None:
        held = self._keys.get(key)
        if held is None:
            held = self._keys[key] = _Held(since=time.time(), failure=failure, attempts=failure.attempts)
            self._told = key
            self._wait(key, held)
        held.count += 1
        self.records += 1
        self.pending += 1
        self._ask(Hold(key[0], delivery, failure))

    # --- what the polling thread answers ---

    def saved(self, count: int) -> None:
        """So many records are in the park now, or their partition went away before."""
        self.pending -= count

    def opened(
        self,
        number: int,
        counts: Mapping[bytes, int],
        heads: Mapping[bytes, Failure],
        decisions: Sequence[Decision] = (),
    ) -> None:
        """A partition came to this worker with these keys parked, each with so many records more. Their heads are tried at once."""
        for raw_key, count in counts.items():
            key, head = (number, raw_key), heads.get(raw_key)
            if key not in self._keys:
                since = head.first_failed_at if head is not None else None
                self._keys[key] = _Held(since=since or time.time(), failure=head)
            self._less(self._keys[key], -count)
            self._begin(key)
        for decision in decisions:
            self.decide(decision)

    def withdraw(self, numbers: Collection[int]) -> None:
        """These partitions are about to go: what is under way ends and counts, and nothing more of them is tried."""
        self._leaving = frozenset(numbers)

    def forget(self, numbers: Collection[int]) -> None:
        """These partitions are gone: their keys are somebody else's concern."""
        self._leaving -= frozenset(numbers)
        self._heard = {id_: number for id_, number in self._heard.items() if number not in numbers}
        for key in [key for key in self._keys if key[0] in numbers]:
            held = self._keys.pop(key)
            held.rest()
            self.records -= held.count
            self._busy -= held.busy
        self._start_due()

    def brought(self, key: Key, deliveries: Sequence[Delivery], settled: int) -> None:
        """The first records of a key, in order; so many others before them could not be read and are dead letters."""
        held = self._keys.get(key)
        if held is None:
            return
        self._less(held, settled)
        held.brought.extend(deliveries)
        if held.count and not held.brought:
            # They are on their way into the store: a transaction was refused and is tried again.
            self._later(UNSAVED_SECONDS, lambda: self._ask_for(key))
            return
        self._on(key, held)

    def decided(self, key: Key, settled: int, again: bool) -> None:
        """A decision was carried out, and settled so many records. `again`: the head is to be tried now."""
        held = self._keys.get(key)
        if held is None:
            return
        self._less(held, settled)
        if settled or again:
            held.tries, held.healing = 0, True
        if held.healing or held.count == 0:
            self._on(key, held)
        else:
            self._rest(key, held)

    # --- what people decide ---

    def decide(self, decision: Decision) -> None:
        """A person decided on a key. While its head is under way the decision waits for what comes of it."""
        if decision.id in self._heard:
            return
        self._heard[decision.id] = decision.partition
        key = (decision.partition, decision.key)
        held = self._keys.get(key)
        if held is None:
            self._ask(Carry(decision.partition, decision))  # there is nothing to do, and that is written down
            return
        held.decisions.append(decision)
        if not held.busy:
            held.rest()
            self._take_up(held)
            self._on(key, held)

    # --- trying again ---

    def settled(self, ticket: ParkTicket, detail: str | None) -> None:
        """See `Desk`."""
        self._leaves(ticket, Settle(ticket.number, ticket, "delivered", detail))

    def buried(self, ticket: ParkTicket, failure: Failure) -> None:
        """See `Desk`."""
        held = self._keys.get(ticket.key)
        attempts = self._attempts(held, ticket) if held is not None else ticket.record.attempts + 1
        whole = replace(
            failure, attempts=attempts, first_failed_at=ticket.record.first_failed_at or failure.first_failed_at
        )
        self._leaves(ticket, Settle(ticket.number, ticket, "dead", whole.told, whole))

    def _leaves(self, ticket: ParkTicket, order: Settle) -> None:
        held = self._keys.get(ticket.key)
        if held is None or not ticket.current:
            return  # whoever has the partition now will try it again
        self._ask(order)
        self._settled.labels(self._pipeline, order.outcome).inc()
        self._less(held, 1)
        held.tries, held.healing, held.failure = 0, True, None
        self._on(ticket.key, held)

    def _attempts(self, held: _Held, ticket: ParkTicket) -> int:
        """How often a head was tried in all, now that it was tried once more."""
        if held.head != ticket.record.sequence:
            held.head, held.attempts = ticket.record.sequence, ticket.record.attempts
        held.attempts += 1
        return held.attempts

    def _failed_again(self, ticket: ParkTicket, failure: Failure) -> None:
        held = self._keys.get(ticket.key)
        if held is None or not ticket.current:
            return
        held.tries += 1
        attempts, last = self._attempts(held, ticket), failure.last or (failure.code, failure.reason)
        held.failure = Failure.exhausted(attempts, last, ticket.record.first_failed_at or failure.first_failed_at)
        self._told = ticket.key
        self._ask(Note(ticket.number, ticket, held.failure))
        held.healing = False
        held.rest()
        if held.decisions:
            self._on(ticket.key, held)
        else:
            self._rest(ticket.key, held)

    def _on(self, key: Key, held: _Held) -> None:
        """The next thing with a key that is busy: a decision, its next record, more records, or the end of holding it back."""
        if held.decisions:
            held.brought.clear()
            self._ask(Carry(key[0], held.decisions.popleft()))
        elif held.count == 0:
            del self._keys[key]
            self._busy -= 1
            self._start_due()
            log.info("a key is free again", pipeline=self._pipeline, partition=key[0])
        elif self._closing or key[0] in self._leaving:
            held.brought.clear()
        elif held.brought:
            self._deliver([held.brought.popleft()])
        else:
            self._ask_for(key)

    def _rest(self, key: Key, held: _Held) -> None:
        """The key waits for its next try, and others may be tried."""
        held.busy = False
        self._busy -= 1
        held.rest()
        self._wait(key, held)
        self._start_due()

    def _wait(self, key: Key, held: _Held) -> None:
        if not self._closing and key[0] not in self._leaving:
            retry = self._spec.retry
            seconds = max(backoff(retry, retry.attempts + held.tries), min(retry.min_delay, retry.max_delay))
            held.timer = self._later(seconds, lambda: self._begin(key))
            held.next_try = time.time() + seconds

    def _begin(self, key: Key) -> None:
        """The key's head is due."""
        self._due.append(key)
        self._start_due()

    def _start_due(self) -> None:
        while self._due and self._busy < self._limit and not self._closing:
            key = self._due.popleft()
            held = self._keys.get(key)
            if held is not None and not held.busy and key[0] not in self._leaving:
                held.rest()
                self._take_up(held)
                self._ask_for(key)

    def _take_up(self, held: _Held) -> None:
        held.busy = True
        self._busy += 1

    def _ask_for(self, key: Key) -> None:
        held = self._keys.get(key)
        if held is not None:
            self._ask(Load(*key, AHEAD if held.healing else 1))

    def _less(self, held: _Held, count: int) -> None:
        held.count -= count
        self.records -= count
