"""What the bus's own topics know of pipelines from before this worker started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.knownoffsets import KnownOffsets
from trunkline.bus.names import Names
from trunkline.bus.worker.board import Board, Report
from trunkline.bus.worker.reported import reported_offsets
from trunkline.bus.worker.wishes import Wish, read_wishes


@dataclass(slots=True)
class Remembered:
    """By pipeline: what people want of it, when it ran first (Unix seconds), and how far it is known to have come; and all reports."""

    wishes: dict[str, Wish] = field(default_factory=dict)
    started_at: dict[str, float] = field(default_factory=dict)
    known: dict[str, KnownOffsets] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)

    def forget(self, pipeline: str) -> None:
        """It is not to be run any more. Should it come back, what is known of it by then counts."""
        for one in (self.wishes, self.started_at, self.known):
            one.pop(pipeline, None)

    def learn(self, newer: Remembered, pipelines: Iterable[str]) -> None:
        """Takes over what is known of these pipelines by now."""
        for name in pipelines:
            if name in newer.wishes:
                self.wishes[name] = newer.wishes[name]
            if name in newer.started_at:
                self.started_at[name] = newer.started_at[name]
            if name in newer.known:
                self.known[name] = newer.known[name]

    @classmethod
    def read(cls, kafka: KafkaSettings, names: Names, board: Board) -> Remembered:
        """Blocks. Raises our error for Kafka's."""
        board.flush()
        started_at, wishes = board.started_at(), read_wishes(kafka, names)
        reports = board.reports()
        known = {name: KnownOffsets(copy) for name, copy in reported_offsets(reports).items()}
        return cls(wishes, started_at, known, reports)
