"""What is known of the topics of one pipeline: their sizes, how values are decoded and encoded, and how text becomes typed values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.source.publish import Caster
from trunkline.bus.topics import DEFAULT_MAX_MESSAGE, ensure_topics, matching_topics, topic_plan, topic_states
from trunkline.core.casting import compile_caster
from trunkline.core.contracts import PushSource, Source
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.manifests import Project
from trunkline.core.subjects import DEFAULT_SUBJECT, filled
from trunkline.registry.belonging import Belonging
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.schema import Schema


class Topics:
    """What the runtimes of one pipeline know of topics: sizes, ids, encoders and decoders. Members of families are created at first use."""

    def __init__(
        self, settings: KafkaSettings, project: Project, registry: RegistryClient, names: Sequence[str]
    ) -> None:
        self._settings = settings
        self._project = project
        self._registry = registry
        self._lock = threading.Lock()
        self._encoders: dict[str, Encoder | None] = {}
        self._casters: dict[tuple[str, str, str], Caster] = {}
        self._decoders: dict[str, Decoder] = {}
        whole = [name for name in names if not name.endswith(".*")]
        families = [name for name in names if name.endswith(".*")]
        if families:
            whole += matching_topics(settings, families)
        states = topic_states(settings, whole)
        self.limits: dict[str, int] = {name: state.max_message_bytes for name, state in states.items()}
        for name in families:
            # Of members that are still to come.
            declared = topic_plan(project, name).config if project.topic_of(name) is not None else {}
            self.limits[name] = int(declared.get("max.message.bytes", DEFAULT_MAX_MESSAGE))
        self.ids: dict[str, str] = {name: state.id for name, state in states.items()}
        self.partitions: dict[str, int] = {name: state.partitions for name, state in states.items()}
        for name in whole:
            # At the start, not at the first record: who writes to the topic looks its schema up, and one that doesn't go is told now.
            if project.schema_of(name) is not None:
                self.schema(name)

    def schema(self, topic: str) -> Schema | None:
        """The registered schema of a topic's values; None where none is known."""
        declared = self._project.schema_of(topic)
        if declared is not None:
            return self._registry.register(self._project.subject_of(topic), Schema(declared))
        manifest = self._project.topic_of(topic)
        pattern = manifest.spec.subject if manifest is not None else DEFAULT_SUBJECT
        if "{record}" in pattern:
            return None  # which records there are is known only by them
        try:
            return self._registry.latest(filled(pattern, topic, ""))
        except ConfigurationError as error:
            if error.code == "schema.unknown_subject":
                return None
            raise

    def encoder(self, topic: str) -> Encoder | None:
        """The encoder of a topic, None where it has no schema. Creates the topic where it is a new member of a family."""
        if topic in self._encoders:
            return self._encoders[topic]
        with self._lock:
            if topic not in self._encoders:
                if topic not in self.limits:
                    self._create(topic)
                schema = self.schema(topic)
                self._encoders[topic] = Encoder(schema) if schema is not None else None
        return self._encoders[topic]

    def caster(self, topic: str, values: Literal["text", "json"], extra: Literal["refuse", "ignore"]) -> Caster | None:
        """The function that makes typed values from text or from JSON for a topic."""
        wanted = (topic, values, extra)
        if wanted not in self._casters:
            encoder = self.encoder(topic)
            if encoder is None:
                return None
            self._casters[wanted] = compile_caster(encoder.schema.json, extra_columns=extra, values=values)
        return self._casters[wanted]

    def decoder(self, topic: str) -> Decoder:
        """The decoder of a topic: values of other versions are brought to the schema that its manifest declares, and those whose schema
        is not of the topic's subject are refused."""
        found = self._decoders.get(topic)
        if found is None:
            manifest = self._project.topic_of(topic)
            declared = self._project.schema_of(topic)
            reader = self.schema(topic) if declared is not None else None
            trust = manifest.spec.trust if manifest is not None else "internal"
            belongs = Belonging(self._registry, self._project.subjects_of(topic))
            found = self._decoders[topic] = Decoder(self._registry, reader=reader, trust=trust, belongs=belongs)
        return found

    def topic_id(self, topic: str) -> str:
        """Kafka's id of a topic."""
        if topic not in self.ids:
            self._look(topic)
        return self.ids.get(topic, "")

    def _create(self, topic: str) -> None:
        if self._project.topic_of(topic) is None:
            raise RejectedError(f"no manifest declares the topic {topic}", code="route.unknown_topic")
        ensure_topics(self._settings, [topic_plan(self._project, topic)])
        self._look(topic)

    def _look(self, topic: str) -> None:
        state = topic_states(self._settings, [topic]).get(topic)
        if state is not None:
            self.limits[topic], self.ids[topic], self.partitions[topic] = (
                state.max_message_bytes,
                state.id,
                state.partitions,
            )


def caster_of_source(source: Source | PushSource, topics: Topics) -> Callable[[str], Caster | None]:
    """How a source's values become those of a schema: text is cast, JSON too where it has no type of its own for a thing.

    A source that brings its schema along gives values of it.
    """
    if getattr(source, "default_schema", None) is not None:
        return lambda _topic: None
    values: Literal["text", "json"] = "text" if getattr(source, "textual", False) else "json"
    extra: Literal["refuse", "ignore"] = getattr(source, "extra_columns", "refuse")
    return lambda topic: topics.caster(topic, values, extra)


def caster_of_edits(source: Source | PushSource, topics: Topics) -> Callable[[str], Caster | None]:
    """As `caster_of_source`; what a person writes in JSON for a source of texts may have JSON's types: `5` as well as `"5"`."""
    caster_of = caster_of_source(source, topics)

    def found(topic: str) -> Caster | None:
        own, typed = caster_of(topic), topics.caster(topic, "json", getattr(source, "extra_columns", "refuse"))
        if own is None or typed is None or own is typed:
            return own

        def cast(value: Any) -> Any:
            try:
                return own(value)
            except RejectedError:
                if all(isinstance(one, str) for one in value.values()):
                    raise
                return typed(value)

        return cast

    return found
