"""The engine's part of the table of kinds: how the runtime of each kind of pipeline is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trunkline.bus.worker.building.bench import Beginning, Bench, Built
from trunkline.bus.worker.building.sinks import sink_runtime
from trunkline.bus.worker.building.sources import source_runtime
from trunkline.bus.worker.building.streams import stream_runtime

RUNTIMES: Mapping[str, Callable[[Bench, Any, Beginning], Built]] = {
    "Source": source_runtime,
    "Stream": stream_runtime,
    "Sink": sink_runtime,
}
"""By the names of `trunkline.core.manifests.kinds.PIPELINE_KINDS`. Each builder takes manifests of its kind alone."""
