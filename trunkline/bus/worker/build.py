"""From manifests to runtimes: plug-ins made, schemas registered, routes and steps compiled, codecs chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from trunkline.bus.deadletters import ORIGIN, SENT_AGAIN, Failure
from trunkline.bus.delivery.breaker import Breaker
from trunkline.bus.delivery.fallback import FallbackSink
from trunkline.bus.delivery.gates import Gate
from trunkline.bus.intake import Reading
from trunkline.bus.kafka import KafkaSettings, headers_of
from trunkline.bus.knownoffsets import Copy, KnownOffsets
from trunkline.bus.names import Names
from trunkline.bus.parking.partitions import fit_parked_topic
from trunkline.bus.sink.accounts import Gates
from trunkline.bus.sink.runtime import SinkRuntime
from trunkline.bus.source.deliveries import AcceptedDeliveries
from trunkline.bus.source.poll import SourceRuntime
from trunkline.bus.source.publish import Publisher
from trunkline.bus.source.push import PushRuntime
from trunkline.bus.state import Changelog
from trunkline.bus.stream.plain import PlainTransform
from trunkline.bus.stream.runtime import StreamRuntime
from trunkline.bus.stream.transform import CompiledStep, FailedRecordError, Output, Transform
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.bus.worker.board import Board
from trunkline.bus.worker.codecs import Topics, caster_of_edits, caster_of_source
from trunkline.bus.worker.reported import reported_offsets
from trunkline.core.contracts import PluginContext, PushSource, Sink, Source
from trunkline.core.errors import ConfigurationError
from trunkline.core.event import Event
from trunkline.core.log import get_logger
from trunkline.core.manifests import Pipeline, Project
from trunkline.core.manifests import Sink as SinkManifest
from trunkline.core.manifests import Source as SourceManifest
from trunkline.core.manifests import Stream as StreamManifest
from trunkline.core.manifests.build import (
    build_fallback,
    build_sink,
    build_source,
    prepare_steps,
    sink_filter,
    source_routes,
    stream_routes,
)
from trunkline.registry.client import RegistryClient

Runtime = SourceRuntime | PushRuntime | StreamRuntime | SinkRuntime


@dataclass(frozen=True, slots=True)
class Built:
    """A pipeline ready to run: its runtime, and the plug-in to open before and close after (none for a stream)."""

    runtime: Runtime
    plugin: Source | PushSource | Sink | None


class Builder:
    """Makes the runtimes of one worker. All methods block (registry, broker) and belong in a thread."""

    def __init__(
        self,
        settings: KafkaSettings,
        names: Names,
        registry: RegistryClient,
        project: Project,
        *,
        worker: str,
        data: Path,
        gates: Gates,
        accepted: AcceptedDeliveries,
    ) -> None:
        self._settings = settings
        self._names = names
        self._registry = registry
        self._project = project
        self._worker = worker
        self._data = data
        self._gates = gates
        self._accepted = accepted

    def context(self, manifest: Pipeline) -> PluginContext:
        """What a plug-in is told when it is opened."""
        pipeline = manifest.metadata.name
        data = self._data / "pipelines" / pipeline
        data.mkdir(parents=True, exist_ok=True)
        log = get_logger(f"trunkline.pipeline.{pipeline}").bind(pipeline=pipeline)
        quota = self._gates.quota(getattr(manifest.spec, "connection", None))
        return PluginContext(self._names.namespace, pipeline, data, log, quota)

    def build(self, manifest: Pipeline, *, started_at: float | None, known: KnownOffsets) -> Built:
        """The runtime of a pipeline. Raises `ConfigurationError` for what validation could not see, else what broker or registry say."""
        if isinstance(manifest, SourceManifest):
            return self._source(manifest)
        if isinstance(manifest, StreamManifest):
            return self._stream(manifest, started_at, known)
        name = manifest.metadata.name
        sink, gates = self._sink_and_gates(manifest)
        topics = Topics(self._settings, self._project, self._registry, [*manifest.spec.from_, self._names.retry(name)])
        self._require(topics, manifest.spec.from_)
        retry = self._names.retry(name)

        def decode(event: Event) -> tuple[Any, Any]:
            topic = event.topic
            if topic == retry:
                topic = origin_topic(event.headers) or topic
            return topics.decoder(topic).decode(event.raw or b"")

        runtime = SinkRuntime(
            self._reading(topics, manifest, started_at, known),
            sink,
            manifest.spec.delivery,
            decode,
            topic_ids=topics.ids,
            gates=gates,
            threshold=DeadLetterThreshold(manifest.spec.dead_letters, name),
            when=sink_filter(self._project, manifest),
            parked=self._parked(manifest, topics) if not sink.promises.contiguous else None,
        )
        return Built(runtime, sink)

    def _parked(self, manifest: SinkManifest, topics: Topics) -> Changelog | None:
        """The changelog of a sink's parked records; None where it does not park."""
        name, delivery = manifest.metadata.name, manifest.spec.delivery
        if not delivery.parks:
            return None
        topic = self._names.parked(name)
        inputs = {one: (count, topics.limits[one]) for one, count in topics.partitions.items()}
        state = fit_parked_topic(self._settings, self._names, name, inputs, asked=delivery.exhausted == "park")
        if state is None:
            return None
        folder = self._data / "state" / self._worker / name / "parked"
        return Changelog(self._settings.of(name), name, topic, state.id, folder)

    def _sink_and_gates(self, manifest: SinkManifest) -> tuple[Sink, Sequence[Gate]]:
        """The plug-in, with its fallback where it has one, and the gates that the engine has its calls pass."""
        sink, other = build_sink(self._project, manifest), build_fallback(self._project, manifest)
        gates = self._gates.for_pipeline(manifest, self._project)
        if other is None or manifest.spec.fallback is None:
            return sink, gates
        breaker = next((gate for gate in gates if isinstance(gate, Breaker)), None)
        with_fallback = FallbackSink(
            sink,
            other,
            after=manifest.spec.fallback.after,
            breaker=breaker,
            other_gates=self._gates.for_fallback(manifest, self._project),
        )
        return with_fallback, [gate for gate in gates if gate is not breaker]

    def _source(self, manifest: SourceManifest) -> Built:
        name = manifest.metadata.name
        source = build_source(self._project, manifest)
        publisher = _publisher(
            self._settings, self._names, self._registry, self._project, manifest, source, self._worker
        )
        settings = self._settings.of(name).fitting(publisher.limits.values())
        if isinstance(source, PushSource):
            push = PushRuntime(
                settings,
                self._names,
                name,
                source,
                publisher,
                worker=self._worker,
                accepted=self._accepted,
            )
            return Built(push, source)
        return Built(SourceRuntime(settings, self._names, name, source, publisher, worker=self._worker), source)

    def _stream(self, manifest: StreamManifest, started_at: float | None, known: KnownOffsets) -> Built:
        name = manifest.metadata.name
        retry = self._names.retry(name)
        targets = [target.topic for target in manifest.spec.to]
        topics = Topics(
            self._settings,
            self._project,
            self._registry,
            [*manifest.spec.from_, *targets, retry, self._names.dead_letters(name)],
        )
        self._require(topics, manifest.spec.from_)

        def transform_of(topic: str) -> Transform:
            schema = topics.schema(topic)
            prepared, output = prepare_steps(self._project, manifest, schema.json if schema is not None else None)
            routes = stream_routes(self._project, manifest, output)
            steps = [CompiledStep.of(one.name, one.step, one.on_error) for one in prepared]
            return Transform(
                topics.decoder(topic), steps, routes, topics.encoder, topics.limits, topic_id=topics.topic_id(topic)
            )

        def transform_or_retry(topic: str) -> Transform | RetryTransform:
            return RetryTransform(transform_of) if topic == retry else transform_of(topic)

        runtime = StreamRuntime(
            self._reading(topics, manifest, started_at, known),
            transform_or_retry,
            exactly_once=manifest.spec.processing == "exactly-once",
            threshold=DeadLetterThreshold(manifest.spec.dead_letters, name),
        )
        return Built(runtime, None)

    def _reading(
        self,
        topics: Topics,
        manifest: StreamManifest | SinkManifest,
        started_at: float | None,
        known: KnownOffsets,
    ) -> Reading:
        return Reading(
            self._settings.of(manifest.metadata.name).fitting(topics.limits.values()),
            self._names,
            manifest.metadata.name,
            manifest.spec.from_,
            manifest.spec.start,
            self._worker,
            started_at,
            topics.ids,
            known,
            lambda: self._reported(manifest.metadata.name),
        )

    def _reported(self, pipeline: str) -> Copy:
        """What all workers reported by now of how far a pipeline has come."""
        return reported_offsets(Board(self._settings, self._names).reports()).get(pipeline, {})

    def _require(self, topics: Topics, inputs: Sequence[str]) -> None:
        for topic in inputs:
            if not topic.endswith(".*") and topic not in topics.limits:
                raise ConfigurationError(
                    f"the topic {topic} does not exist",
                    hint="create it, or remove `external: true` from its manifest",
                    code="topic.missing",
                )


def source_publisher(
    settings: KafkaSettings, names: Names, registry: RegistryClient, project: Project, pipeline: str, worker: str
) -> Publisher | None:
    """What publishes the events of a source, for what it has in quarantine; None where the project has no such source."""
    manifest = project.sources.get(pipeline)
    if manifest is None:
        return None
    source = build_source(project, manifest)
    return _publisher(settings, names, registry, project, manifest, source, worker, edited=True)


def _publisher(
    settings: KafkaSettings,
    names: Names,
    registry: RegistryClient,
    project: Project,
    manifest: SourceManifest,
    source: Source | PushSource,
    worker: str,
    *,
    edited: bool = False,
) -> Publisher:
    name = manifest.metadata.name
    targets = [target.topic for target in manifest.spec.to]
    topics = Topics(settings, project, registry, [*targets, names.dead_letters(name)])
    return Publisher(
        names,
        name,
        worker,
        manifest.spec.connector,
        source_routes(project, manifest),
        topics.encoder,
        caster_of_edits(source, topics) if edited else caster_of_source(source, topics),
        topics.limits,
    )


class RetryTransform:
    """The transform of the retry topic: each record goes the way of the topic that it came from first."""

    def __init__(self, transform_of: Any) -> None:
        self._transform_of = transform_of
        self._transforms: dict[str, Transform] = {}
        self.plain: dict[bytes, PlainTransform] = {}

    def __call__(self, message: Message, topic: str, partition: int, offset: int) -> tuple[list[Output], Event]:
        """As `Transform`; outputs do not carry the headers of the redrive."""
        origin = origin_topic(headers_of(message))
        if origin is None:
            raise FailedRecordError(
                Failure(
                    "DECODE",
                    "redrive.no_origin",
                    f"the record in {topic} does not say where it came from: only redrive may write here",
                )
            )
        transform = self._transforms.get(origin)
        if transform is None:
            transform = self._transforms[origin] = self._transform_of(origin)
        outputs, event = transform(message, topic, partition, offset)
        clean = [
            Output(one.topic, one.value, one.key, [pair for pair in one.headers if pair[0] not in SENT_AGAIN])
            for one in outputs
        ]
        return clean, event


def origin_topic(headers: Sequence[tuple[str, Any]]) -> str | None:
    """The topic that a redriven record came from first."""
    for name, value in headers:
        if name == ORIGIN and isinstance(value, bytes):
            return value.decode("utf-8", "replace").split("/", 1)[0]
    return None


def positions_in(positions: Mapping[str, int]) -> dict[tuple[str, int], int]:
    """Positions by `topic/partition`, as reports have them, by partition."""
    found = ((place.rpartition("/"), offset) for place, offset in positions.items())
    return {(topic, int(number)): offset for (topic, _, number), offset in found}
