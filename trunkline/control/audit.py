"""The audit trail: who changed what, whether the trail is what was written, and a copy of it that can be judged anywhere."""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from trunkline.bus.accounting import audit
from trunkline.bus.accounting.audit import Entry, Finding, Recorded, Trail
from trunkline.bus.accounting.notedheads import NotedHeads
from trunkline.bus.sealing import sealed_by_now
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError

EXPORT_VERSION = 1
SEAL_SECONDS = 10.0
"""How long an export waits until everything in it is sealed."""
LONGEST_LINE = 64 * 2**20
"""Of an export, in bytes: a record of Kafka is shorter."""


def entries(cluster: Cluster, *, pipeline: str | None, limit: int | None) -> list[Entry]:
    """The last `limit` entries, oldest first, or all; of one pipeline where named, which may be one that is no more.

    Raises `ConfigurationError` for a pipeline that neither is nor has any.
    """
    found = list(deque(audit.entries(cluster.kafka, cluster.names, pipeline), limit))
    if pipeline is not None and not found:
        pipelines.known(cluster, pipeline)
    return found


@dataclass(frozen=True, slots=True)
class Criteria:
    """What entries are looked for: those that fit all that is given.

    `action` may have `*` for anything. `subject` is a pipeline, or anything else that was decided about. `since` and `until` are Unix
    seconds. `text` is looked for in all of the entry, in any case.
    """

    who: str | None = None
    action: str | None = None
    subject: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None

    def fit(self, entry: Entry) -> bool:
        """Whether the entry is one of them."""
        return (
            (self.who is None or entry.who == self.who)
            and (self.action is None or fnmatchcase(entry.action, self.action))
            and (
                self.subject is None or self.subject in {entry.pipeline, entry.subject, entry.subject.partition("/")[2]}
            )
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
            and (self.text is None or self.text.casefold() in _written(entry).casefold())
        )


def _written(entry: Entry) -> str:
    return orjson.dumps(entry.as_dict()).decode()


def search(cluster: Cluster, criteria: Criteria, *, limit: int | None) -> list[Entry]:
    """The last `limit` entries that fit, oldest first, or all of them."""
    return list(deque(filter(criteria.fit, audit.entries(cluster.kafka, cluster.names)), limit))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of a trail. `found` counts all findings, of which the first are in `findings`.

    `unsealed` entries are covered by no seal yet: of what was done to them little shows. `unchained` ones are of a version without
    chains: seals alone speak for them. `compared` are the heads noted earlier that it was compared with.
    """

    trail: str
    records: int
    entries: int
    writers: int
    unchained: int
    unsealed: int
    seals: int
    head: str
    sealed_at: float | None
    compared: list[str]
    found: int
    findings: list[Finding] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return self.found == 0

    def as_dict(self) -> dict[str, Any]:
        """The verdict as data."""
        return {**asdict(self), "intact": self.intact, "findings": [one.as_dict() for one in self.findings]}


def verify(cluster: Cluster, *, head: str | None, home: Path | None) -> Verdict:
    """Judges the trail of the cluster, with a head that was noted earlier, and with the one that workers have noted in a home folder.

    Raises `ConfigurationError` (`audit.version`) where a newer version wrote, and our error for Kafka's.
    """
    trail, topic = Trail(), cluster.names.audit
    for record in audit.records(cluster.kafka, cluster.names):
        trail.take(record)
    noted = NotedHeads(home, cluster.kafka, cluster.names).read() if home is not None else None
    return _judged(topic, trail, [one for one in (head, noted.head if noted is not None else None) if one is not None])


def _judged(name: str, trail: Trail, heads: Iterable[str]) -> Verdict:
    compared = list(dict.fromkeys(heads))
    for head in compared:
        trail.expect_head(head, name)
    return Verdict(
        name,
        trail.records,
        trail.entries,
        trail.writers,
        trail.unchained,
        trail.unsealed,
        trail.seals,
        trail.head,
        trail.sealed_at,
        compared,
        trail.found,
        trail.findings,
    )


# --- exports ---


def export(cluster: Cluster) -> Iterator[bytes]:
    """The trail as lines of JSON: its records byte for byte, and at the end how many they are, the head, and a digest of the lines.

    It is sealed before, so that a seal covers all of it where nobody writes meanwhile. Raises our error for Kafka's.
    """
    sealed_by_now(cluster.kafka, cluster.names, who=cluster.actor, patience=SEAL_SECONDS)
    trail, digest = Trail(), sha256()
    for record in audit.records(cluster.kafka, cluster.names):
        trail.take(record)
        line = orjson.dumps(_line(record), option=orjson.OPT_APPEND_NEWLINE)
        digest.update(line)
        yield line
    end = {
        "export": EXPORT_VERSION,
        "topic": cluster.names.audit,
        "records": trail.records,
        "unsealed": trail.unsealed,
        "head": trail.head,
        "seal": trail.number,
        "at": time.time(),
        "by": cluster.actor,
        "sha256": digest.hexdigest(),
    }
    yield orjson.dumps(end, option=orjson.OPT_APPEND_NEWLINE)


def _line(record: Recorded) -> dict[str, Any]:
    return {
        "partition": record.partition,
        "offset": record.offset,
        **_content("key", record.key),
        **_content("value", record.value),
    }


def _content(name: str, content: bytes | None) -> dict[str, str | None]:
    """Text as it is, which ours always is; anything else in base64."""
    try:
        return {name: None if content is None else content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content or b"").decode()}


def verify_file(file: Path, *, head: str | None) -> Verdict:
    """Judges an export, without any cluster. Raises `ConfigurationError` for a file that can't be read."""
    judge = _ExportJudge(file)
    try:
        with file.open("rb") as lines:
            number = 0
            while line := lines.readline(LONGEST_LINE):
                number += 1
                judge.take(number, line)
    except OSError as error:
        raise ConfigurationError(
            f"it can't be read: {error.strerror or error}",
            where=str(file),
            hint="name a file that `trunkline audit export` wrote",
            code="audit.file",
        ) from error
    return judge.verdict(head)


class _ExportJudge:
    """Takes the lines of an export in their order."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._trail = Trail()
        self._digest = sha256()
        self._told: list[Finding] = []
        self._end: dict[str, Any] | None = None

    def take(self, number: int, line: bytes) -> None:
        """Takes a line."""
        place = f"{self._file}, line {number}"
        try:
            data = orjson.loads(line)
            if self._end is not None:
                self._tell(place, "inserted", "this stands behind the end of the export")
            elif "export" in data:
                self._take_end(place, data)
            else:
                self._trail.take(self._record(place, data))
                self._digest.update(line)
        except (ValueError, TypeError, KeyError, AttributeError):
            self._tell(place, "unreadable", "this is no line of an export")
            self._digest.update(line)

    def verdict(self, head: str | None) -> Verdict:
        """What was found."""
        trail, name = self._trail, str(self._file)
        if self._end is None:
            self._tell(name, "missing", "the end of the export is missing")
        elif trail.unsealed and self._end.get("unsealed") == 0:
            what = f"{trail.unsealed} entries are covered by no seal, and all of them were when it was exported"
            self._tell(name, "inserted", what)
        heads = [head] if head is not None else []
        found = _judged(name, trail, heads)
        told = [*self._told, *found.findings]
        return Verdict(**{**_fields(found), "findings": told, "found": found.found + len(self._told)})

    @staticmethod
    def _record(place: str, data: dict[str, Any]) -> Recorded:
        partition, offset = data["partition"], data["offset"]
        if type(partition) is not int or type(offset) is not int:
            raise TypeError("no place")
        place = f"{place}, {audit.place_of('record', partition, offset)}"
        return Recorded(place, offset, _bytes(data, "key"), _bytes(data, "value"), partition)

    def _take_end(self, place: str, data: dict[str, Any]) -> None:
        if data["export"] != EXPORT_VERSION:
            raise ConfigurationError(
                f"it was written by another version: {data['export']!r}",
                where=place,
                hint="run the version that wrote it",
                code="audit.version",
            )
        self._end = data
        if data.get("sha256") != self._digest.hexdigest():
            self._tell(place, "changed", "the lines before are not those that were exported: their digest is another")
        if data.get("records") != self._trail.records:
            self._tell(
                place, "missing", f"{data.get('records')} records were exported, and {self._trail.records} are here"
            )
        if data.get("head") != self._trail.head:
            self._tell(place, "changed", "the last seal here is not the head that was exported")

    def _tell(self, place: str, kind: Any, what: str) -> None:
        self._told.append(Finding(place, kind, what))


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in Verdict.__slots__}


def _bytes(data: dict[str, Any], name: str) -> bytes | None:
    encoded = data.get(f"{name}_base64")
    if encoded is not None:
        return base64.b64decode(encoded, validate=True)
    content = data[name]
    if content is None:
        return None
    return str(content).encode()
