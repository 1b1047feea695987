"""What a sink's polling thread needs of its deliveries, whether they go record by record or in gapless ranges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from trunkline.bus.delivery.outgoing import Delivery, Ticket
from trunkline.bus.intake import Assigned, Partition
from trunkline.core.cause import Cause


class Deliveries(Protocol):
    """The deliveries of one pipeline on one worker. They belong to the event loop; what may be used from elsewhere says so."""

    @property
    def held(self) -> int:
        """Records taken and not settled yet. From any thread."""

    @property
    def held_bytes(self) -> int:
        """The size of those. From any thread."""

    @property
    def answered(self) -> bool:
        """Whether a call has ended with a verdict for each of its records."""

    def open(self) -> None:
        """The pipeline runs: from now on the gates of its account may wake it."""

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Partitions came to this worker; their records follow."""

    def submit(self, deliveries: Sequence[Delivery], read_to: Mapping[Partition, int], /) -> None:
        """Takes records in the order they were read; `read_to` says how far each partition was read."""

    def pause(self, paused: bool) -> None:
        """Begins no call while paused; those under way end."""

    def freeze(self) -> None:
        """Begins no call until `forget` has run as often as this. From any thread, and at once: the event loop may be busy."""

    def forget(self, gone: Callable[[Ticket], bool], partitions: Collection[Partition], /) -> None:
        """Drops what waits of partitions that go or went. A call under way ends; nothing of them is tried again. Ends one freeze."""

    def under_way(self, of: Callable[[Ticket], bool]) -> bool:
        """Whether a call is under way for one of these tickets. From any thread."""

    def cause(self) -> Cause | None:
        """Why records that are held do not go; None while they do, or where there are none."""

    async def drain(self, deadline: float) -> None:
        """Begins nothing more and waits for the calls under way, at most `deadline` seconds; what is left is cancelled."""
