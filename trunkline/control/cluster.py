"""One cluster as the services see it: how Kafka is reached, what things are called there, where its schemas are, and who asks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.bus.worker.board import Board
from trunkline.registry.client import RegistryClient

RegistryOpener = Callable[[], AbstractContextManager[RegistryClient]]


@dataclass(slots=True)
class Cluster:
    """What every service is given. Making one reaches nothing: the first request does."""

    kafka: KafkaSettings
    names: Names
    actor: str
    """Who asks: recorded with wishes, decisions, jobs and applied manifests."""
    registry: RegistryOpener
    """Opens the schema registry for as long as its context lasts, which may take seconds where none is running."""
    _board: Board | None = field(default=None, init=False, repr=False)

    @property
    def board(self) -> Board:
        """What workers report."""
        if self._board is None:
            self._board = Board(self.kafka, self.names)
        return self._board

    def ensure_internal_topics(self) -> None:
        """Creates those of our own topics that are missing: whoever writes first may come before any worker."""
        ensure_topics(self.kafka, internal_topics(self.names))
