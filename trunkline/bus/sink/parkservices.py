"""What a sink does for its park."""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import Consumer

from trunkline.bus.sink.arrivals import Decoding
from trunkline.bus.sink.committing import Committing
from trunkline.bus.sink.eventloop import EventLoop
from trunkline.core.event import Event


class ParkServices:
    """See `trunkline.bus.parking.park.Surroundings`."""

    def __init__(
        self,
        decoding: Decoding,
        committing: Committing,
        loop: EventLoop,
        member: Callable[[], Consumer],
    ) -> None:
        self._decoding = decoding
        self._committing = committing
        self._loop = loop
        self._member = member

    def decode(self, event: Event) -> None:
        """See `Surroundings`."""
        self._decoding.decode(event)

    def commit_now(self) -> None:
        """See `Surroundings`."""
        self._committing.commit()

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """See `Surroundings`."""
        self._loop.post(function, *arguments)

    @property
    def group_member(self) -> Consumer:
        """See `Surroundings`."""
        return self._member()
