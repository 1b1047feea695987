"""What the bus's own topics know of pipelines from before this worker started."""

from __future__ import annotations

from dataclasses import dataclass, field

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.knownoffsets import KnownOffsets
from trunkline.bus.names import Names
from trunkline.bus.worker.board import Board
from trunkline.bus.worker.reported import reported_offsets
from trunkline.bus.worker.wishes import Wish, read_wishes


@dataclass(slots=True)
class Remembered:
    """By pipeline: what people want of it, when it ran first (Unix seconds), and how far it is known to have come."""

    wishes: dict[str, Wish] = field(default_factory=dict)
    started_at: dict[str, float] = field(default_factory=dict)
    known: dict[str, KnownOffsets] = field(default_factory=dict)

    @classmethod
    def read(cls, kafka: KafkaSettings, names: Names, board: Board) -> Remembered:
        """Blocks. Raises our error for Kafka's."""
        started_at, wishes = board.started_at(), read_wishes(kafka, names)
        reported = reported_offsets(board.reports())
        return cls(wishes, started_at, {name: KnownOffsets(copy) for name, copy in reported.items()})
