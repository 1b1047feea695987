"""The runtimes of streams."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Message

from trunkline.bus.deadletters import SENT_AGAIN, Failure, origin_topic
from trunkline.bus.kafka import headers_of
from trunkline.bus.records import Output
from trunkline.bus.stream.plain import PlainTransform
from trunkline.bus.stream.runtime import StreamRuntime
from trunkline.bus.stream.transform import CompiledStep, FailedRecordError, Transform
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.bus.worker.building.bench import Beginning, Bench, Built, reading_of, require
from trunkline.bus.worker.building.codecs import Topics
from trunkline.core.event import Event
from trunkline.core.manifests import Stream as StreamManifest
from trunkline.core.manifests.build import prepare_steps, stream_routes


def stream_runtime(bench: Bench, manifest: StreamManifest, beginning: Beginning) -> Built:
    """The runtime of a stream. Raises `ConfigurationError` for what validation could not see."""
    name = manifest.metadata.name
    retry = bench.names.retry(name)
    targets = [target.topic for target in manifest.targets]
    topics = Topics(
        bench.settings,
        bench.project,
        bench.registry,
        [*manifest.inputs, *targets, retry, bench.names.dead_letters(name)],
    )
    require(topics, name, manifest.inputs)

    def transform_of(topic: str) -> Transform:
        schema = topics.schema(topic)
        prepared, output = prepare_steps(bench.project, manifest, schema.json if schema is not None else None)
        routes = stream_routes(bench.project, manifest, output)
        steps = [CompiledStep.of(one.name, one.step, one.on_error) for one in prepared]
        return Transform(
            topics.decoder(topic), steps, routes, topics.encoder, topics.limits, topic_id=topics.topic_id(topic)
        )

    def transform_or_retry(topic: str) -> Transform | RetryTransform:
        return RetryTransform(transform_of) if topic == retry else transform_of(topic)

    runtime = StreamRuntime(
        reading_of(bench, topics, manifest, beginning),
        transform_or_retry,
        exactly_once=manifest.spec.processing == "exactly-once",
        threshold=DeadLetterThreshold(manifest.spec.dead_letters, name),
    )
    return Built(runtime, None)


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
