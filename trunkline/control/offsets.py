"""Where pipelines stand in their inputs, and setting that while they are stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from trunkline.bus.accounting.commits import committed
from trunkline.bus.intake import Partition
from trunkline.bus.worker.offsetadmin import saved_positions, set_offsets, wanted_offsets
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """One input partition: the committed offset and its ledger's epoch, and the second copy that workers reported. None where there is
    none."""

    topic: str
    partition: int
    committed: int | None
    saved: int | None
    epoch: int | None

    def as_dict(self) -> dict[str, Any]:
        """The offsets as data."""
        return asdict(self)


def of_pipeline(cluster: Cluster, pipeline: str) -> list[PartitionOffsets]:
    """The offsets of every partition. Raises `ConfigurationError` for an unknown pipeline."""
    pipelines.known(cluster, pipeline)
    found = committed(cluster.kafka, cluster.names, pipeline)
    saved = _saved(cluster, pipeline)
    return [
        PartitionOffsets(
            *place,
            committed=found[place][0] if place in found else None,
            saved=saved.get(place),
            epoch=found[place][1].epoch if place in found else None,
        )
        for place in sorted({*found, *saved})
    ]


def set_(cluster: Cluster, pipeline: str, to: str | datetime, *, topic: str | None = None) -> Mapping[Partition, int]:
    """Sets the offsets of a stopped pipeline, of all inputs or of one topic, and returns them. Its ledger begins a new epoch.

    `to` is `earliest`, `latest`, `saved` (what workers reported last) or a time. Raises `ConfigurationError` for an unknown pipeline,
    for one that has read nothing (`offsets.none`), and for one that runs (`offsets.in_use`).
    """
    pipelines.known(cluster, pipeline)
    saved = _saved(cluster, pipeline)
    places = sorted({*committed(cluster.kafka, cluster.names, pipeline), *saved})
    partitions = [place for place in places if topic is None or place[0] == topic]
    if not partitions:
        raise ConfigurationError(
            f"{pipeline} has read nothing" + (f" of {topic}" if topic else ""),
            hint="its manifest's `start` says where it begins",
            code="offsets.none",
        )
    mine = {place: offset for place, offset in saved.items() if place in partitions}
    wanted = wanted_offsets(cluster.kafka, partitions, to, mine)
    set_offsets(cluster.kafka, cluster.names, pipeline, wanted)
    return dict(sorted(wanted.items()))


def _saved(cluster: Cluster, pipeline: str) -> dict[Partition, int]:
    return saved_positions(cluster.board.reports()).get(pipeline, {})
