"""How far a pipeline is known to have come, apart from its commits: Kafka forgets those of an idle group, and those of a deleted topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from trunkline.bus.kafka.cluster import Place
from trunkline.bus.ledger import Ledger


class Reached(NamedTuple):
    """An offset that was reached in an epoch of the ledger. The greater one is the later one: whoever sets offsets back begins an epoch."""

    epoch: int
    offset: int


ByTopicId = dict[str, Reached]
"""What was reached in a partition, by the id of its topic: one that was made anew has another id. The one noted last is the last."""
Copy = Mapping[Place, Mapping[str, Reached]]
"""What is known of all partitions."""


class KnownOffsets:
    """What one worker knows of a pipeline, for as long as it has it. May be noted and asked from any thread."""

    def __init__(self, reported: Copy | None = None) -> None:
        self._reached: dict[Place, ByTopicId] = {place: dict(known) for place, known in (reported or {}).items()}

    def note(self, place: Place, offset: int, ledger: Ledger) -> None:
        """It has come so far in the topic that the ledger is of."""
        before = self._reached.get(place, {})
        others = {topic_id: known for topic_id, known in before.items() if topic_id != ledger.topic_id}
        self._reached[place] = {**others, ledger.topic_id: Reached(ledger.epoch, offset)}

    def advance(self, positions: Mapping[Place, int]) -> None:
        """It has come so far in the topics that were noted last."""
        for place, offset in positions.items():
            known = self._reached.get(place)
            if known:
                topic_id, before = list(known.items())[-1]
                known[topic_id] = before._replace(offset=offset)

    def last(self, place: Place) -> tuple[str, Reached] | None:
        """The topic that was noted last of a partition, and what was reached in it."""
        known = list(self._reached.get(place, {}).items())
        return known[-1] if known else None

    def of(self, place: Place) -> ByTopicId:
        """What was reached in a partition; empty where nothing is known."""
        return dict(self._reached.get(place, {}))

    @property
    def copy(self) -> dict[Place, ByTopicId]:
        """Everything."""
        return {place: dict(known) for place, known in list(self._reached.items())}


def merged(copies: Iterable[Copy]) -> dict[Place, ByTopicId]:
    """Several copies as one, given the oldest first: the last topic of a partition is that of the newest copy."""
    found: dict[Place, ByTopicId] = {}
    for copy in copies:
        for place, known in copy.items():
            mine = found.setdefault(place, {})
            for topic_id, reached in known.items():
                mine[topic_id] = max(reached, mine.pop(topic_id, reached))
    return found
