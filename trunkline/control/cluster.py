"""One cluster as the services see it: how Kafka is reached, what things are called there, where its schemas are, and who asks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.bus.worker.applied import gather_applied, read_applied
from trunkline.bus.worker.board import Board
from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests import Project
from trunkline.core.subjects import Subjects
from trunkline.registry.client import RegistryClient
from trunkline.registry.decoders import Decoders

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
    _project: Project | None = field(default=None, init=False, repr=False)

    @property
    def board(self) -> Board:
        """What workers report."""
        if self._board is None:
            self._board = Board(self.kafka, self.names)
        return self._board

    def subjects_of(self, topic: str) -> Subjects:
        """The subjects that values of a topic may be of, as the manifests that are applied say."""
        if self._project is None:
            try:
                self._project = gather_applied(read_applied(self.kafka, self.names)).project
            except ConfigurationError:
                self._project = Project()  # what is applied can't be read here: every topic has its usual subject
        return self._project.subjects_of(topic)

    def decoders(self, registry: RegistryClient) -> Decoders:
        """The decoder of each topic, for looking at records."""
        return Decoders(registry, self.subjects_of)

    def ensure_internal_topics(self) -> None:
        """Creates those of our own topics that are missing: whoever writes first may come before any worker."""
        ensure_topics(self.kafka, internal_topics(self.names))
