"""The board: what workers say of pipelines (`_trunkline.status`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import orjson

from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings, UnawaitedProducer, produce_all_and_wait, read_all
from trunkline.bus.names import Names
from trunkline.bus.states import State
from trunkline.bus.worker.inventory import KEY as INVENTORY_KEY
from trunkline.bus.worker.inventory import Inventory
from trunkline.core.cause import Cause
from trunkline.core.jsonable import note_bytes

VERSION = 1
REPORT_SECONDS = 5.0
"""Counts and offsets that moved are written at this interval."""
REPEAT_SECONDS = 15.0
"""Unchanged reports are repeated at this interval: idle pipelines are most of what a large worker has, and a report costs the broker
too."""
STALE_SECONDS = 30.0
"""A worker whose last word is older than this is taken to be gone."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker says of one pipeline. `at` and `since` are Unix seconds."""

    pipeline: str
    kind: str
    worker: str
    state: State
    since: float
    at: float
    cause: Cause | None = None
    """Why it fails, waits or stands still; None while it does its work."""
    failures: int = 0
    finished: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    """Records by what became of them; `fallback` are those of the delivered ones that a sink's fallback took since the worker began."""
    open: int = 0
    """Records read that the ledgers can't account for."""
    positions: dict[str, int] = field(default_factory=dict)
    topic_ids: dict[str, str] = field(default_factory=dict)
    """Of which topics the positions are, and `epochs` of which epochs of their ledgers: see `ReportedOffsets`."""
    epochs: dict[str, int] = field(default_factory=dict)
    holding: bool = False
    """Whether the partitions of the positions are its own now; else these are what it said last."""
    restart_at: float | None = None
    restart: int = 0
    breaker: str = ""
    """How the breaker of a sink's account stands: `closed`, `half-open` or `open`; empty where there is none."""
    parked_records: int = 0
    """Records that wait in its park now; `counts` has how many ever were parked."""
    parked_keys: int = 0
    per_second: float = 0.0
    """Input records settled a second, of late."""
    progress: list[dict[str, Any]] = field(default_factory=list)
    """Of a source's splits: `done` of `total`, `what` they are of, and `seconds_left`, None where it is not known."""
    version: str = ""
    """The identity of the version that runs, or ran last; empty while none has been opened."""
    wanted: str = ""
    """The identity of the version that the manifests ask for: another one while it can't be opened, or is being opened."""
    removed: bool = False
    """Whether it is the last word on a pipeline that is not to be run any more: it is told of no longer, but its positions stay."""

    @property
    def lives(self) -> bool:
        """Whether its worker is there and has the pipeline."""
        return not self.ended and self.state is not State.UNASSIGNED

    @property
    def ended(self) -> bool:
        """Whether its worker will say no more of the pipeline, since it is removed there or the worker is gone."""
        return self.removed or time.time() - self.at > STALE_SECONDS

    @property
    def stale(self) -> bool:
        """Whether its worker has been silent for too long."""
        return self.state is not State.STOPPED and time.time() - self.at > STALE_SECONDS

    @property
    def reason(self) -> str | None:
        """What the cause says, where there is one."""
        return self.cause.reason if self.cause is not None else None

    @property
    def code(self) -> str | None:
        """The code of the cause, where there is one."""
        return self.cause.code if self.cause is not None else None

    @property
    def hint(self) -> str | None:
        """What to do about the cause, where there is one."""
        return self.cause.hint if self.cause is not None else None

    def as_dict(self) -> dict[str, Any]:
        """The report as data."""
        data = {name: getattr(self, name) for name in _FIELDS}
        return {**data, "cause": self.cause.as_dict() if self.cause is not None else None}

    def says_as(self, other: Report) -> bool:
        """Whether it says what an earlier one said, but for when."""
        return replace(self, at=other.at) == other

    def stands_as(self, other: Report) -> bool:
        """Whether it tells of the same state and cause as an earlier one, however often something was tried since."""
        same = self.cause is other.cause or (self.cause is not None and self.cause.says_as(other.cause))
        return self.state is other.state and same


_FIELDS = tuple(one.name for one in fields(Report))


class Board:
    """Reads and writes the reports. Blocks; belongs in a thread."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self._settings = settings
        self._names = names
        self._producer = UnawaitedProducer(settings)

    def reports(self) -> list[Report]:
        """The latest report of every worker on every pipeline."""
        found: dict[str, Report] = {}
        for message in read_all(self._settings, self._names.status):
            key = (message.key() or b"").decode()
            value = message.value()
            if "/" not in key or key.startswith("@"):
                continue
            if value is None:
                found.pop(key, None)
            else:
                found[key] = parse_report(value)
        return sorted(found.values(), key=lambda report: (report.pipeline, report.worker))

    def started_at(self) -> dict[str, float]:
        """When each pipeline ran first, in Unix seconds: what `start: latest` means for topics that appear later."""
        found = {}
        for message in read_all(self._settings, self._names.status):
            key, value = (message.key() or b"").decode(), message.value()
            if "/" not in key and not key.startswith("@") and value is not None:
                found[key] = float(orjson.loads(value)["started_at"])
        return found

    def note_starts(self, starts: Mapping[str, float]) -> None:
        """Remembers when pipelines ran first, in Unix seconds; returns when Kafka has all of it. Raises our error for Kafka's."""
        records = [
            (orjson.dumps({"v": VERSION, "started_at": at}), pipeline.encode()) for pipeline, at in starts.items()
        ]
        produce_all_and_wait(self._producer.producer(), self._names.status, records)

    def inventories(self) -> list[Inventory]:
        """What workers have: those that run, and those that were killed."""
        found = {}
        for message in read_all(self._settings, self._names.status):
            key, value = (message.key() or b"").decode(), message.value()
            if key.startswith(INVENTORY_KEY):
                found[key] = value
        return [Inventory.parse(value) for value in found.values() if value is not None]

    def say_inventory(self, inventory: Inventory) -> None:
        """Says what a worker has, without waiting."""
        key = f"{INVENTORY_KEY}{inventory.worker}".encode()
        self._producer.write(self._names.status, inventory.to_record(), key)

    def withdraw_inventory(self, worker: str) -> None:
        """A worker ends gracefully: it has nothing any more. Does not wait."""
        self._producer.write(self._names.status, None, f"{INVENTORY_KEY}{worker}".encode())

    def report(self, report: Report) -> None:
        """Writes a report, without waiting."""
        record = note_bytes({"v": VERSION, **report.as_dict()})
        self._producer.write(self._names.status, record, f"{report.pipeline}/{report.worker}".encode())

    def flush(self) -> None:
        """Waits until Kafka has every report."""
        self._producer.flush(5)


def parse_report(value: bytes) -> Report:
    """The report in a record of the status topic."""
    return report_of(orjson.loads(value))


def report_of(data: Mapping[str, Any]) -> Report:
    """The report that `Report.as_dict` gave as data; what a newer version adds is left out."""
    cause = data.get("cause")
    data = {**data, "state": State(data["state"]), "cause": Cause.from_dict(cause) if cause else None}
    known = set(Report.__slots__)
    return Report(**{name: content for name, content in data.items() if name in known})


def positions_in(positions: Mapping[str, int]) -> dict[Partition, int]:
    """Positions by `topic/partition`, as reports have them, by partition."""
    found = ((place.rpartition("/"), offset) for place, offset in positions.items())
    return {(topic, int(number)): offset for (topic, _, number), offset in found}
