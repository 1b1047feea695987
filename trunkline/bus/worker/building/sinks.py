"""The runtimes of sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trunkline.bus.deadletters import origin_topic
from trunkline.bus.delivery.fallback import FallbackSink
from trunkline.bus.delivery.gates import Gate, OneAtFirst
from trunkline.bus.parking.partitions import fit_parked_topic
from trunkline.bus.sink.accounts import AccountGates
from trunkline.bus.sink.assembly import SinkPlan, assembled
from trunkline.bus.state import Changelog
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.bus.worker.building.bench import Beginning, Bench, Built, reading_of, require
from trunkline.bus.worker.building.codecs import Topics
from trunkline.core.event import Event
from trunkline.core.manifests import Sink as SinkManifest
from trunkline.core.manifests.build import build_fallback, build_sink, sink_filter


def sink_runtime(bench: Bench, manifest: SinkManifest, beginning: Beginning) -> Built:
    """The runtime of a sink. Raises `ConfigurationError` for what validation could not see."""
    name = manifest.metadata.name
    account = bench.gates.for_pipeline(manifest, bench.project)
    fallback = _with_fallback(bench, manifest, account)
    sink = fallback if fallback is not None else build_sink(bench.project, manifest)
    retry = bench.names.retry(name)
    topics = Topics(bench.settings, bench.project, bench.registry, [*manifest.inputs, retry])
    require(topics, name, manifest.inputs)

    def decode(event: Event) -> tuple[Any, Any]:
        topic = event.topic
        if topic == retry:
            topic = origin_topic(event.headers) or topic
        return topics.decoder(topic).decode(event.raw or b"")

    plan = SinkPlan(
        reading_of(bench, topics, manifest, beginning),
        sink,
        manifest.spec.delivery,
        decode,
        topics.ids,
        account,
        _gates(account, beginning, breaker=fallback is None),
        DeadLetterThreshold(manifest.spec.dead_letters, name),
        taken=(lambda: fallback.taken) if fallback is not None else lambda: 0,
        when=sink_filter(bench.project, manifest),
        parked=_parked(bench, manifest, topics) if not sink.promises.contiguous else None,
    )
    return Built(assembled(plan, bench.loop, bench.decisions), sink)


def _gates(account: AccountGates, beginning: Beginning, *, breaker: bool) -> Sequence[Gate]:
    """What the engine asks before a call.

    With a fallback the breaker is asked by the two sinks themselves: open, it sends records to the other one.
    """
    gates = account.all if breaker else account.but_breaker
    return [*gates, OneAtFirst()] if beginning.cautious else gates


def _parked(bench: Bench, manifest: SinkManifest, topics: Topics) -> Changelog | None:
    """The changelog of a sink's parked records; None where it does not park."""
    name, delivery = manifest.metadata.name, manifest.spec.delivery
    if not delivery.parks:
        return None
    inputs = {one: (count, topics.limits[one]) for one, count in topics.partitions.items()}
    state = fit_parked_topic(bench.settings, bench.names, name, inputs, asked=delivery.exhausted == "park")
    if state is None:
        return None
    folder = bench.data / "state" / bench.worker / name / "parked"
    return Changelog(bench.settings.of(name), name, bench.names.parked(name), state.id, folder)


def _with_fallback(bench: Bench, manifest: SinkManifest, account: AccountGates) -> FallbackSink | None:
    """The plug-in and its fallback as one; None where it has none."""
    other = build_fallback(bench.project, manifest)
    if other is None or manifest.spec.fallback is None:
        return None
    return FallbackSink(
        build_sink(bench.project, manifest),
        other,
        after=manifest.spec.fallback.after,
        breaker=account.breaker,
        other_gates=bench.gates.for_fallback(manifest, bench.project).all,
    )
