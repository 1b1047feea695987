"""The parts of a sink that its polling thread and its membership share."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.bus.delivery.tickets import Tickets
from trunkline.bus.parking.park import Park
from trunkline.bus.parking.parking import Parking
from trunkline.bus.sink.committing import Committing
from trunkline.bus.sink.deliveries import Deliveries
from trunkline.bus.sink.eventloop import EventLoop
from trunkline.bus.sink.lifecycle import Lifecycle
from trunkline.bus.sink.upkeep import Upkeep


@dataclass(frozen=True, slots=True)
class Parts:
    """One sink pipeline on one worker. `parking` and `park` are there together, or not at all."""

    pipeline: str
    lifecycle: Lifecycle
    loop: EventLoop
    tickets: Tickets
    deliveries: Deliveries
    committing: Committing
    upkeep: Upkeep
    parking: Parking | None
    park: Park | None
