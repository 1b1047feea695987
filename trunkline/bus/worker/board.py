"""The board: what workers say of pipelines (`_trunkline.status`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import orjson

from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings, UnawaitedProducer, produce_all_and_wait, read_all
from trunkline.bus.names import Names
from trunkline.bus.states import State
from trunkline.bus.together import Together
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
STALE_SECONDS = 8.0
"""A worker that was not heard for so long, four of its heartbeats, is taken to be gone: ten seconds after it was killed that is known."""
HEARTBEAT_KEY = "@heartbeat."
"""What the keys of heartbeats begin with; the worker's id follows."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """That a worker is there. Times are Unix seconds."""

    worker: str
    at: float
    started_at: float
    host: str = ""
    pid: int = 0
    url: str = ""
    """Where its HTTP service is asked."""
    pipelines: int = 0
    version: str = ""
    """Of Trunkline; empty of one that did not say it."""
    level: str = ""
    """What it logs: from this level on."""

    @property
    def age(self) -> float:
        """Seconds since it was written, by this machine's clock."""
        return max(0.0, time.time() - self.at)

    @property
    def fresh(self) -> bool:
        """Whether the worker is there, as far as this tells."""
        return self.age <= STALE_SECONDS

    def as_dict(self) -> dict[str, Any]:
        """The heartbeat as data."""
        return asdict(self)


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
    heard_at: float = 0.0
    """When its worker was heard last (Unix seconds), as who read the report found; an unchanged one is seldom written anew."""

    @property
    def silent(self) -> bool:
        """Whether its worker has not been heard for too long."""
        return time.time() - max(self.at, self.heard_at) > STALE_SECONDS

    @property
    def lives(self) -> bool:
        """Whether its worker is there and has the pipeline."""
        return not self.ended and self.state is not State.UNASSIGNED

    @property
    def ended(self) -> bool:
        """Whether its worker will say no more of the pipeline, since it is removed there or the worker is gone."""
        return self.removed or self.silent

    @property
    def stale(self) -> bool:
        """Whether nobody can tell any more if it is so: a stopped pipeline stays stopped without its worker."""
        return self.state is not State.STOPPED and self.silent

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
        return replace(self, at=other.at, heard_at=other.heard_at) == other

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
        self._newest = Together(self._latest)

    def reports_of(self, pipeline: str) -> list[Report]:
        """The latest report of every worker on one pipeline. Hundreds may ask at once: the topic is read for all of them together."""
        return [parse_report(value) for key, value in self._newest().items() if key.rpartition("/")[0] == pipeline]

    def reports(self) -> list[Report]:
        """The latest report of every worker on every pipeline, with when that worker was heard last."""
        latest = self._latest()
        heard = {beat.worker: beat.at for beat in _beats(latest)}
        found = [parse_report(value) for key, value in latest.items() if "/" in key and not key.startswith("@")]
        return sorted(
            (replace(one, heard_at=heard.get(one.worker, 0.0)) for one in found),
            key=lambda report: (report.pipeline, report.worker),
        )

    def workers(self) -> list[Heartbeat]:
        """The latest heartbeat of every worker that did not end gracefully; `fresh` tells which are there."""
        return sorted(_beats(self._latest()), key=lambda beat: beat.worker)

    def started_at(self) -> dict[str, float]:
        """When each pipeline ran first, in Unix seconds: what `start: latest` means for topics that appear later."""
        return {
            key: float(orjson.loads(value)["started_at"])
            for key, value in self._latest().items()
            if "/" not in key and not key.startswith("@")
        }

    def note_starts(self, starts: Mapping[str, float]) -> None:
        """Remembers when pipelines ran first, in Unix seconds; returns when Kafka has all of it. Raises our error for Kafka's."""
        records = [
            (orjson.dumps({"v": VERSION, "started_at": at}), pipeline.encode()) for pipeline, at in starts.items()
        ]
        produce_all_and_wait(self._producer.producer(), self._names.status, records)

    def inventories(self) -> list[Inventory]:
        """What workers have: those that run, and those that were killed."""
        return [Inventory.parse(value) for key, value in self._latest().items() if key.startswith(INVENTORY_KEY)]

    def say_inventory(self, inventory: Inventory) -> None:
        """Says what a worker has, without waiting."""
        key = f"{INVENTORY_KEY}{inventory.worker}".encode()
        self._producer.write(self._names.status, inventory.to_record(), key)

    def withdraw_inventory(self, worker: str) -> None:
        """A worker ends gracefully: it has nothing any more. Does not wait."""
        self._producer.write(self._names.status, None, f"{INVENTORY_KEY}{worker}".encode())

    def beat(self, heartbeat: Heartbeat) -> None:
        """Writes a heartbeat, without waiting."""
        record = orjson.dumps({"v": VERSION, **heartbeat.as_dict()})
        self._producer.write(self._names.status, record, f"{HEARTBEAT_KEY}{heartbeat.worker}".encode())

    def leave(self, worker: str) -> None:
        """A worker ends gracefully: nobody has to wait until its heartbeat is old. Does not wait."""
        self._producer.write(self._names.status, None, f"{HEARTBEAT_KEY}{worker}".encode())

    def report(self, report: Report) -> None:
        """Writes a report, without waiting."""
        key, record = record_of(report)
        self._producer.write(self._names.status, record, key)

    def flush(self) -> None:
        """Waits until Kafka has every report."""
        self._producer.flush(5)

    def _latest(self) -> dict[str, bytes]:
        """The latest record of each key of the status topic."""
        found: dict[str, bytes] = {}
        for message in read_all(self._settings, self._names.status):
            key, value = (message.key() or b"").decode(), message.value()
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value
        return found


def _beats(latest: Mapping[str, bytes]) -> list[Heartbeat]:
    found = (orjson.loads(value) for key, value in latest.items() if key.startswith(HEARTBEAT_KEY))
    known = set(Heartbeat.__slots__)
    return [Heartbeat(**{name: content for name, content in data.items() if name in known}) for data in found]


def record_of(report: Report) -> tuple[bytes, bytes]:
    """The key and the value of a report's record."""
    data = {name: value for name, value in report.as_dict().items() if name != "heard_at"}
    return f"{report.pipeline}/{report.worker}".encode(), note_bytes({"v": VERSION, **data})


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
