"""Decoders by topic, for whoever looks at records of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trunkline.core.subjects import Subjects
from trunkline.registry.belonging import Belonging
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder

SubjectsOf = Callable[[str], Subjects]
"""The subjects of a topic's values."""


class Decoders:
    """The decoder of each topic. Values of a topic that the registry knows nothing of are decoded by their ids alone."""

    def __init__(self, registry: RegistryClient, subjects_of: SubjectsOf = Subjects) -> None:
        self._registry = registry
        self._subjects_of = subjects_of
        self._found: dict[str, Decoder] = {}

    def __call__(self, topic: str) -> Decoder:
        """The decoder of a topic; an empty name means that no topic is known."""
        found = self._found.get(topic)
        if found is None:
            subjects = replace(self._subjects_of(topic), lenient=True)
            belongs = Belonging(self._registry, subjects) if topic else None
            found = self._found[topic] = Decoder(self._registry, belongs=belongs)
        return found
