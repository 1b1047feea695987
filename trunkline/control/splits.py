"""Where the splits of sources stand in what they read, and sending them back to its beginning."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from trunkline.bus.commands import Write
from trunkline.bus.source.positions import SplitPosition, position_key, read_positions
from trunkline.bus.worker.unattended import change_unattended
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, ConflictError, did_you_mean

PUSH = "push-"
"""How the splits of a push source begin, one a worker: they count what was received, and can't receive it again."""


@dataclass(frozen=True, slots=True)
class Split:
    """One split: where it stands, in the plug-in's own words, and what became of what it read."""

    split: str
    position: Any
    read: int
    delivered: int
    filtered: int
    dead: int
    finished: bool

    @classmethod
    def of(cls, split: str, stand: SplitPosition) -> Split:
        """The split that stands so."""
        return cls(split, stand.position, stand.read, stand.delivered, stand.filtered, stand.dead, stand.finished)

    @property
    def shown(self) -> str:
        """The position as text."""
        return orjson.dumps(self.position).decode()

    def as_dict(self) -> dict[str, Any]:
        """The split as data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SplitsPlan:
    """What sending splits back does: to the `start` of what they read, or into oblivion (`forget`) with their counts."""

    pipeline: str
    to: str
    splits: tuple[Split, ...]
    stands: Mapping[str, SplitPosition]

    @property
    def text(self) -> str:
        """What follows from it."""
        read = sum(one.read for one in self.splits)
        if self.to == "forget":
            return f"{len(self.splits)} splits with their counts are forgotten; one that the source still has begins at its start"
        return f"{len(self.splits)} splits begin at their start: what is still there of the {read} records they read is published again"

    def as_dict(self) -> dict[str, Any]:
        """The plan as data."""
        return {"pipeline": self.pipeline, "to": self.to, "splits": [one.as_dict() for one in self.splits]}


def of_source(cluster: Cluster, source: str) -> list[Split]:
    """The splits of a source that have a position, by name."""
    return [Split.of(name, stand) for name, stand in sorted(_stands(cluster, source).items())]


def plan(cluster: Cluster, source: str, to: str, *, splits: Collection[str] = ()) -> SplitsPlan:
    """Works out what sending splits back does, all of them or those that are named. Nothing is changed.

    Raises `ConfigurationError`: where it is no polled source, has read nothing or has no such split, and for another word than `start` and
    `forget`.
    """
    if pipelines.known(cluster, source)[source] != "Source":
        raise ConfigurationError(f"{source} is no source", hint="its inputs have partitions: --topic, --partition")
    if to not in {"start", "forget"}:
        raise ConfigurationError(
            f"a source can't be set to {to!r}: its positions are its plug-in's own",
            where="--to",
            hint="start reads again from the beginning, forget drops positions and counts of splits that are no more",
        )
    stands = _stands(cluster, source)
    if not stands:
        raise ConfigurationError(f"{source} has read nothing", hint="it begins at its start", code="offsets.none")
    for name in splits:
        if name not in stands:
            raise ConfigurationError(
                f"{source} has no split {name!r}",
                where="--split",
                hint=did_you_mean(name, stands),
                code="offsets.split",
            )
    chosen = {name: stand for name, stand in sorted(stands.items()) if name in splits or not splits}
    if to == "start" and all(name.startswith(PUSH) for name in chosen):
        raise ConfigurationError(
            f"{source} is sent what it publishes: it can't read it again",
            hint="ask the sender to send it again; forget drops the counts",
            code="offsets.push",
        )
    return SplitsPlan(source, to, tuple(Split.of(name, stand) for name, stand in chosen.items()), chosen)


def carry_out(cluster: Cluster, planned: SplitsPlan) -> None:
    """Does what was planned, with an audit entry; a source that is not wanted to be stopped is restarted.

    Raises `ConfigurationError` (`offsets.in_use`) while a worker runs it, and `ConflictError` where a split has moved since.
    """
    cluster.ensure_internal_topics()
    names, source = cluster.names, planned.pipeline

    def still() -> None:
        now = _stands(cluster, source)
        moved = [name for name, stand in planned.stands.items() if now.get(name) != stand]
        if moved:
            raise ConflictError(
                f"splits of {source} moved since they were looked at: {', '.join(moved)}",
                moved=[{"split": name} for name in moved],
                hint="look at them as they are now, and ask again; nothing was changed",
            )

    change_unattended(
        cluster.kafka,
        names,
        source,
        f"splits.{planned.to}",
        by=cluster.actor,
        details=planned.as_dict(),
        still=still,
        records=[
            Write(names.positions, position_key(source, name), _after(stand, planned.to))
            for name, stand in planned.stands.items()
        ],
        fenced=[names.transactional_id(source, "split", name) for name in planned.stands],
    )


def _after(stand: SplitPosition, to: str) -> bytes | None:
    """What is written: the counts go on, so that they say what was read in all."""
    return None if to == "forget" else replace(stand, position=None, finished=False).to_record()


def _stands(cluster: Cluster, source: str) -> dict[str, SplitPosition]:
    found = read_positions(cluster.kafka, cluster.names)
    return {split: stand for (pipeline, split), stand in found.items() if pipeline == source}
