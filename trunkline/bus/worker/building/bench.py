"""What the runtimes of a worker are built with, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.bus.beginnings import missing_topics
from trunkline.bus.intake import Reading
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.knownoffsets import Copy, KnownOffsets
from trunkline.bus.names import Names
from trunkline.bus.parking.desk import DecisionDesk
from trunkline.bus.runtime import Runtime
from trunkline.bus.sink.accounts import Gates
from trunkline.bus.source.deliveries import AcceptedDeliveries
from trunkline.bus.source.ingress import Ingress
from trunkline.bus.worker.board import Board
from trunkline.bus.worker.building.codecs import Topics
from trunkline.bus.worker.reported import reported_offsets
from trunkline.core.contracts import PushSource, Sink, Source
from trunkline.core.manifests import Project
from trunkline.core.manifests import Sink as SinkManifest
from trunkline.core.manifests import Stream as StreamManifest
from trunkline.registry.client import RegistryClient


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything at hand: the cluster, the project, and what the pipelines of one worker share. `data` is the worker's folder."""

    settings: KafkaSettings
    names: Names
    registry: RegistryClient
    project: Project
    worker: str
    data: Path
    loop: asyncio.AbstractEventLoop
    gates: Gates
    accepted: AcceptedDeliveries
    ingress: Ingress
    decisions: DecisionDesk
    board: Board


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a pipeline begins: when it ran first (Unix seconds, None for now), and what is known of how far it has come.

    A `cautious` one was refused before: it calls the other system once, and only then as often as it may.
    """

    started_at: float | None = None
    known: KnownOffsets = field(default_factory=KnownOffsets)
    cautious: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """A pipeline ready to run: its runtime, and the plug-in to open before and close after (none for a stream)."""

    runtime: Runtime
    plugin: Source | PushSource | Sink | None


def reading_of(bench: Bench, topics: Topics, manifest: StreamManifest | SinkManifest, beginning: Beginning) -> Reading:
    """What a stream or a sink reads, as whom, and from where."""
    pipeline = manifest.metadata.name

    def reported() -> Copy:
        """What all workers reported by now of how far it has come."""
        return reported_offsets(bench.board.reports_of(pipeline)).get(pipeline, {})

    return Reading(
        bench.settings.of(pipeline).fitting(topics.limits.values()),
        bench.names,
        pipeline,
        manifest.inputs,
        manifest.spec.start,
        bench.worker,
        beginning.started_at,
        topics.ids,
        beginning.known,
        reported,
    )


def require(topics: Topics, pipeline: str, inputs: Sequence[str]) -> None:
    """Raises `FatalError` (`topic.missing`) where an input does not exist; members of a family may be still to come."""
    missing = [topic for topic in inputs if not topic.endswith(".*") and topic not in topics.limits]
    if missing:
        raise missing_topics(pipeline, missing)
