"""The parts of a sink's runtime, made and joined. Nothing runs yet: this is done in a thread, before the event loop hears of it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.bus.delivery.delivery import Delivering, in_flight_limit
from trunkline.bus.delivery.exhausted import dead_letter
from trunkline.bus.delivery.gates import Gate
from trunkline.bus.delivery.tickets import Tickets
from trunkline.bus.intake import Reading
from trunkline.bus.kafka import LazyProducer
from trunkline.bus.parking.desk import DecisionDesk
from trunkline.bus.parking.orders import Order
from trunkline.bus.parking.park import Park
from trunkline.bus.parking.parking import Parking
from trunkline.bus.sink.accounts import AccountGates
from trunkline.bus.sink.arrivals import Arrivals, DecoderSource, Decoding
from trunkline.bus.sink.committing import Committing
from trunkline.bus.sink.contiguous import ContiguousDelivering
from trunkline.bus.sink.deliveries import Deliveries
from trunkline.bus.sink.eventloop import EventLoop
from trunkline.bus.sink.lifecycle import Lifecycle
from trunkline.bus.sink.membership import Group, Membership
from trunkline.bus.sink.parkservices import ParkServices
from trunkline.bus.sink.parts import Parts
from trunkline.bus.sink.polling import PollingThread
from trunkline.bus.sink.room import Room, bound_of
from trunkline.bus.sink.runtime import SinkRuntime
from trunkline.bus.sink.upkeep import Upkeep
from trunkline.bus.state import Changelog
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.contracts import Sink
from trunkline.core.manifests.models import DeliverySpec


@dataclass(frozen=True, slots=True)
class SinkPlan:
    """What a sink's runtime is made from.

    `gates` are those that the engine asks of its `account`. `when` filters; `parked` is where keys are held back, None where none
    are.
    """

    reading: Reading
    sink: Sink
    spec: DeliverySpec
    decode: DecoderSource
    topic_ids: Mapping[str, str]
    account: AccountGates
    gates: Sequence[Gate]
    threshold: DeadLetterThreshold
    taken: Callable[[], int] = lambda: 0
    """How many records the sink's fallback took."""
    when: Callable[[Any, Any], Any] | None = None
    parked: Changelog | None = None


def assembled(plan: SinkPlan, loop: asyncio.AbstractEventLoop, decisions: DecisionDesk) -> SinkRuntime:
    """The runtime of a sink, which will run on this event loop."""
    reading, pipeline = plan.reading, plan.reading.pipeline
    producer = LazyProducer(reading.settings)
    lifecycle, event_loop, group = Lifecycle(), EventLoop(loop), Group(reading)
    tickets = Tickets(reading.names, pipeline, reading.worker, producer, plan.threshold, lifecycle.fail)
    committing = Committing(
        pipeline,
        reading.settings,
        tickets,
        producer,
        known=reading.known,
        group_member=lambda: group.member,
        failed=lifecycle.fail,
        stopped=lambda: lifecycle.failed,
    )
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    parking = _parking(plan, orders) if plan.parked is not None else None
    deliveries = _deliveries(plan, loop, lifecycle, committing, parking)
    decoding = Decoding(reading.names.namespace, pipeline, plan.decode)
    park: Park | None = None
    if parking is not None and plan.parked is not None:
        parking.attach(lambda again: deliveries.submit(again, {}))
        services = ParkServices(decoding, committing, event_loop, lambda: group.member)
        park = Park(
            reading,
            plan.parked,
            tickets,
            parking,
            orders,
            services,
            attempts=plan.spec.retry.attempts,
            topic_ids=plan.topic_ids,
        )
    upkeep = Upkeep(producer, committing, park)
    parts = Parts(pipeline, lifecycle, event_loop, tickets, deliveries, committing, upkeep, parking, park)
    arrivals = Arrivals(
        decoding,
        tickets,
        topic_ids=plan.topic_ids,
        when=plan.when,
        parked=park.became if park is not None else None,
    )
    polling = PollingThread(parts, group, Membership(parts), arrivals, _room(plan, parts))
    return SinkRuntime(parts, polling, plan.account, decisions, plan.taken)


def _deliveries(
    plan: SinkPlan,
    loop: asyncio.AbstractEventLoop,
    lifecycle: Lifecycle,
    committing: Committing,
    parking: Parking | None,
) -> Deliveries:
    pipeline = plan.reading.pipeline
    if plan.sink.promises.contiguous:
        return ContiguousDelivering(
            plan.sink,
            plan.spec,
            pipeline,
            gates=plan.gates,
            commit_plan=committing.plan,
            failed=lifecycle.fail,
        )
    return Delivering(
        plan.sink,
        plan.spec,
        pipeline,
        loop=loop,
        gates=plan.gates,
        failed=lifecycle.fail,
        exhausted=parking if parking is not None else dead_letter,
    )


def _parking(plan: SinkPlan, orders: queue.SimpleQueue[Order]) -> Parking:
    limit = in_flight_limit(plan.sink, plan.spec)
    return Parking(plan.spec, plan.reading.pipeline, limit=limit, ask=orders.put)


def _room(plan: SinkPlan, parts: Parts) -> Room:
    deliveries, parking = parts.deliveries, parts.parking

    def holding() -> tuple[int, int]:
        """What deliveries hold, with the records on their way into the park."""
        pending = parking.pending if parking is not None else 0
        return deliveries.held + pending, deliveries.held_bytes

    return Room(bound_of(plan.sink, plan.spec, plan.reading.settings.shares.held), holding, parts.tickets.works)
