"""Building a pipeline, whatever its kind."""

from __future__ import annotations

from trunkline.bus.worker.building.bench import Beginning, Bench, Built
from trunkline.bus.worker.building.kinds import RUNTIMES
from trunkline.core.contracts import PluginContext
from trunkline.core.log import get_logger
from trunkline.core.manifests import Pipeline


class Builder:
    """Makes the runtimes of one worker. All methods block (registry, broker) and belong in a thread."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def build(self, manifest: Pipeline, beginning: Beginning) -> Built:
        """The runtime of a pipeline. Raises `ConfigurationError` for what validation could not see, else what broker or registry say."""
        return RUNTIMES[manifest.kind](self._bench, manifest, beginning)

    def context(self, manifest: Pipeline) -> PluginContext:
        """What a plug-in is told when it is opened."""
        bench, pipeline = self._bench, manifest.metadata.name
        data = bench.data / "pipelines" / pipeline
        data.mkdir(parents=True, exist_ok=True)
        log = get_logger(f"trunkline.pipeline.{pipeline}").bind(pipeline=pipeline)
        quota = bench.gates.quota(getattr(manifest.spec, "connection", None))
        return PluginContext(bench.names.namespace, pipeline, data, log, quota)
