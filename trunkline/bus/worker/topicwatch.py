"""The watch over topics: one question each few seconds for all that a worker's pipelines read and write.

A client does not notice that a topic was deleted and made anew under its name (librdkafka#4898), a paused or idle pipeline notices
nothing at all, and one that waits for a topic has to be told that it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.topics import TopicIdentity, topic_identities
from trunkline.core.log import get_logger

log = get_logger(__name__)
WATCH_SECONDS = 5.0
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Watched:
    """The topics of one pipeline.

    `inputs` are those that its manifest names, and its retry topic; `ids` has those that this worker reads. `outputs` is what its
    manifest has it write, `own` what is made for it alone, with as many partitions as its inputs, `memory` where it keeps what it
    must not forget.
    """

    inputs: Sequence[str] = ()
    ids: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    own: Sequence[str] = ()
    memory: Sequence[str] = ()

    @property
    def topics(self) -> set[str]:
        """All of them; families have no members of their own here until those are read."""
        return {
            name
            for name in (*self.inputs, *self.ids, *self.outputs, *self.own, *self.memory)
            if not name.endswith(".*")
        }


@dataclass(frozen=True, slots=True)
class TopicNews:
    """What is not as it was: inputs that are `missing`, inputs that are `replaced` by another topic of the name, and whether the inputs
    have more partitions than the pipeline's own topics (`grown`). `outputs` were deleted, or made anew, and so was what it keeps its
    memory in where it is `forgotten`."""

    missing: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    grown: bool = False
    forgotten: bool = False

    @property
    def gone(self) -> tuple[str, ...]:
        """Topics that whoever made them has to make again."""
        return (*self.missing, *self.outputs)


class TopicWatch:
    """Blocks; belongs in one thread at a time."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin = settings.admin()  # kept, so that each question is given this one
        self._written: dict[str, TopicIdentity | None] = {}
        self._grown: dict[str, int] = {}

    def look(self, pipelines: Mapping[str, Watched], tell: Callable[[Mapping[str, TopicNews]], object]) -> None:
        """Looks, and tells how it stands with each pipeline. Raises our error for Kafka's."""
        asked = {topic for watched in pipelines.values() for topic in watched.topics}
        there = topic_identities(self._settings, asked, admin=self._admin, timeout=TIMEOUT)
        written = {
            topic for watched in pipelines.values() for topic in (*watched.outputs, *watched.own, *watched.memory)
        }
        changed = self._changed(written, there)
        self._grown = {name: partitions for name, partitions in self._grown.items() if name in pipelines}
        tell({name: self._news(name, watched, there, changed) for name, watched in pipelines.items()})

    def _news(
        self, name: str, watched: Watched, there: Mapping[str, TopicIdentity], changed: Mapping[str, str]
    ) -> TopicNews:
        for topic in {*watched.outputs, *watched.own, *watched.memory} & changed.keys():
            log.warning(
                "what was in a topic of the pipeline is gone", pipeline=name, topic=topic, reason=changed[topic]
            )
        outputs = tuple(topic for topic in watched.outputs if topic in changed)
        missing = {
            topic for topic in (*watched.inputs, *watched.ids) if not topic.endswith(".*") and topic not in there
        }
        replaced = {topic for topic, id_ in watched.ids.items() if topic in there and there[topic].id != id_}
        return TopicNews(
            tuple(sorted(missing)),
            tuple(sorted(replaced)),
            outputs,
            self._has_grown(name, watched, there),
            forgotten=bool(changed.keys() & set(watched.memory)),
        )

    def _changed(self, written: set[str], there: Mapping[str, TopicIdentity]) -> dict[str, str]:
        """What became of topics since the last look, in words; of one that is seen for the first time nothing is known."""
        found = {}
        for topic in written & self._written.keys():
            before, now = self._written[topic], there.get(topic)
            if before is not None and (now is None or now.id != before.id):
                found[topic] = "it was deleted" if now is None else "it was deleted and made anew"
        self._written = {topic: there.get(topic) for topic in written}
        return found

    def _has_grown(self, name: str, watched: Watched, there: Mapping[str, TopicIdentity]) -> bool:
        """Said once of a number: whether the pipeline's own topics can follow is not known here."""
        partitions = max((there[topic].partitions for topic in watched.ids if topic in there), default=0)
        own = [there[topic].partitions for topic in watched.own if topic in there]
        if not own or partitions <= min(own) or self._grown.get(name) == partitions:
            return False
        self._grown[name] = partitions
        return True
