"""The runtimes of sources, polled and pushed, and what publishes their events."""

from __future__ import annotations

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.source.poll import SourceRuntime
from trunkline.bus.source.publish import Publisher
from trunkline.bus.source.push import PushRuntime
from trunkline.bus.worker.building.bench import Beginning, Bench, Built
from trunkline.bus.worker.building.codecs import Topics, caster_of_edits, caster_of_source
from trunkline.core.contracts import PushSource, Source
from trunkline.core.manifests import Project
from trunkline.core.manifests import Source as SourceManifest
from trunkline.core.manifests.build import build_source, source_routes
from trunkline.registry.client import RegistryClient


def source_runtime(bench: Bench, manifest: SourceManifest, _beginning: Beginning) -> Built:
    """The runtime of a source. Where it begins, its position says."""
    name, worker = manifest.metadata.name, bench.worker
    source = build_source(bench.project, manifest)
    publisher = _publisher(bench.settings, bench.names, bench.registry, bench.project, manifest, source, worker)
    settings = bench.settings.of(name).fitting(publisher.limits.values())
    if isinstance(source, PushSource):
        push = PushRuntime(
            settings,
            bench.names,
            name,
            source,
            publisher,
            worker=worker,
            accepted=bench.accepted,
            ingress=bench.ingress,
        )
        return Built(push, source)
    return Built(SourceRuntime(settings, bench.names, name, source, publisher, worker=worker), source)


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
    targets = [target.topic for target in manifest.targets]
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
