"""The second copy of pipelines' offsets: what workers report of them, each with the topic and the epoch that it is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trunkline.bus.intake import Partition
from trunkline.bus.knownoffsets import Copy, KnownOffsets, Reached, merged
from trunkline.bus.worker.board import Report


@dataclass(frozen=True, slots=True)
class ReportedOffsets:
    """Offsets as a report has them, by `topic/partition`.

    `topic_ids` has the id of each topic, and of a partition where that was read last under another one; `epochs` has those above 1.
    """

    positions: dict[str, int] = field(default_factory=dict)
    topic_ids: dict[str, str] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, known: KnownOffsets, places: Iterable[Partition]) -> ReportedOffsets:
        """What is known of these partitions."""
        found = cls()
        for place in places:
            last = known.last(place)
            if last is None:
                continue
            (topic, number), (topic_id, reached) = place, last
            name = f"{topic}/{number}"
            found.positions[name] = reached.offset
            if found.topic_ids.setdefault(topic, topic_id) != topic_id:
                found.topic_ids[name] = topic_id
            if reached.epoch > 1:
                found.epochs[name] = reached.epoch
        return found


def offsets_in(report: Report) -> Copy:
    """The offsets of one report."""
    found: dict[Partition, Mapping[str, Reached]] = {}
    for name, offset in report.positions.items():
        topic, _, number = name.rpartition("/")
        topic_id = report.topic_ids.get(name, report.topic_ids.get(topic, ""))
        found[topic, int(number)] = {topic_id: Reached(report.epochs.get(name, 1), offset)}
    return found


def reported_offsets(reports: Iterable[Report]) -> dict[str, dict[Partition, dict[str, Reached]]]:
    """The second copy of every pipeline's offsets: of the newest topic last."""
    by_pipeline: dict[str, list[Report]] = {}
    for report in sorted(reports, key=lambda one: one.at):
        by_pipeline.setdefault(report.pipeline, []).append(report)
    return {pipeline: merged(map(offsets_in, mine)) for pipeline, mine in by_pipeline.items()}
