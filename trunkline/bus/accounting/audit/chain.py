"""The form of the audit trail: entries that their writers chain, and seals over what stands before them (docs/adr/0031).

A writer is one life of one producer. Its entries are numbered from 1, and each has the hash of the one before it. Seals are numbered
and chained likewise, and each covers every record of the topic up to a place, in the order of the topic.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, Final, NamedTuple

import orjson

from trunkline.bus.accounting.audit.entry import Entry
from trunkline.core.errors import ConfigurationError
from trunkline.core.jsonable import note_bytes

VERSION: Final = 2
UNCHAINED: Final = 1
"""The version whose entries have no chain."""
SEAL_KEY: Final = b"_trunkline.seal"
NOTHING: Final = sha256(b"trunkline audit").hexdigest()
"""The digest of a topic without records."""
MARK: Final = 12
"""How many digits of a record's digest a seal keeps to say which one of those that it covers was changed."""


class UnreadableRecordError(ValueError):
    """A record of the topic that is neither an entry nor a seal; the text says why."""


class Recorded(NamedTuple):
    """A committed record of the topic as it stands there. `place` says where, such as `_trunkline.audit[0]@17`."""

    place: str
    offset: int
    key: bytes | None
    value: bytes | None
    partition: int = 0


def hash_of(value: bytes | None) -> str:
    """The hash of an entry or a seal: SHA-256 over the bytes of its value, in hexadecimal digits."""
    return sha256(value or b"").hexdigest()


def record_digest(key: bytes | None, value: bytes | None) -> str:
    """The digest of a record with its key, as seals cover it."""
    name = key or b""
    return sha256(len(name).to_bytes(8, "big") + name + (value or b"")).hexdigest()


def rolled(before: str, record: str) -> str:
    """The digest of a topic that goes on with a record; both are digests."""
    return sha256(bytes.fromhex(before) + bytes.fromhex(record)).hexdigest()


class Chain:
    """The entries of one writer. Belongs to one producer, and ends with it.

    Whoever aborts a transaction, or does not know whether it committed, goes on with a new chain: so what never was leaves no gap.
    """

    def __init__(self) -> None:
        self.writer = uuid.uuid4().hex[:16]
        self.number = 0
        self.hash = ""

    def value(self, entry: Entry) -> bytes:
        """The value of the record of the chain's next entry."""
        link = {"writer": self.writer, "n": self.number + 1, "previous": self.hash}
        made = note_bytes({"v": VERSION, **entry.as_dict(), **link})
        self.number, self.hash = self.number + 1, hash_of(made)
        return made

    @property
    def head(self) -> Mapping[str, tuple[int, str]]:
        """The writer with its last entry's number and hash; nothing where it has written none."""
        return {self.writer: (self.number, self.hash)} if self.number else {}


@dataclass(frozen=True, slots=True)
class Chained:
    """An entry with its link. `previous` is empty in a writer's first one."""

    entry: Entry
    writer: str
    number: int
    previous: str


@dataclass(frozen=True, slots=True)
class Unchained:
    """An entry of a version without chains: nothing but a seal speaks for it."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Seal:
    """Covers the first `records` records of the topic, whose digest is `digest`, and of each writer in `heads` the entries up to a number.

    `previous` is the hash of the seal before, empty in the first one. `last` is the last covered record: its offset in the topic in which
    the seal was written, which a mirrored topic does not share, and its digest. `marks` begin the digests of the records since the seal
    before; they are left out where there are very many. `heads` cover what stands between those records and the seal.
    """

    number: int
    previous: str
    records: int
    digest: str
    last: tuple[int, str] | None
    heads: Mapping[str, tuple[int, str]]
    marks: Sequence[str]
    at: float
    who: str

    def to_value(self) -> bytes:
        """The value of its record."""
        return note_bytes(
            {
                "v": VERSION,
                "seal": self.number,
                "previous": self.previous,
                "records": self.records,
                "digest": self.digest,
                "last": self.last,
                "heads": dict(self.heads),
                "marks": list(self.marks),
                "at": self.at,
                "who": self.who,
            }
        )


Parsed = Chained | Unchained | Seal
_FIELDS: Final = {one.name for one in fields(Entry)}
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "at": (float, int),
    "who": (str,),
    "action": (str,),
    "pipeline": (str,),
    "details": (dict,),
    "subject": (str,),
    "command": (str,),
}


def parse(value: bytes | None) -> Parsed:
    """What a record of the topic holds.

    Raises `UnreadableRecordError`, and `ConfigurationError` (`audit.version`) for what a newer version wrote.
    """
    if value is None:
        raise UnreadableRecordError("it has no value")
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise UnreadableRecordError(f"it is not JSON: {error}") from None
    if not isinstance(data, dict) or type(version := data.get("v")) is not int:
        raise UnreadableRecordError("it has no version")
    if version > VERSION:
        raise ConfigurationError(
            "the audit trail has entries of a newer Trunkline", hint="run that version", code="audit.version"
        )
    if version == UNCHAINED:
        return Unchained(_entry(data))
    return _seal(data) if "seal" in data else _chained(data)


def _entry(data: Mapping[str, Any]) -> Entry:
    found = {name: content for name, content in data.items() if name in _FIELDS}
    wrong = [name for name, content in found.items() if not _is(content, *_TYPES[name])]
    missing = [name for name in ("at", "who", "action", "pipeline") if name not in found]
    if wrong or missing:
        raise UnreadableRecordError(f"{', '.join(wrong or missing)} is {'of a wrong type' if wrong else 'missing'}")
    return Entry(**found)


def _chained(data: Mapping[str, Any]) -> Chained:
    writer, number, previous = data.get("writer"), data.get("n"), data.get("previous")
    if not (isinstance(writer, str) and type(number) is int and isinstance(previous, str)):
        raise UnreadableRecordError("it has no link to the entry before it")
    return Chained(_entry(data), writer, number, previous)


def _seal(data: Mapping[str, Any]) -> Seal:
    number, previous, records, digest = (data.get(name) for name in ("seal", "previous", "records", "digest"))
    last, heads, marks = data.get("last"), data.get("heads"), data.get("marks")
    sound = (
        _is(number, int)
        and isinstance(previous, str)
        and _is(records, int)
        and _is_digest(digest)
        and (last is None or _is_place(last))
        and isinstance(heads, dict)
        and all(_is_place(one) for one in heads.values())
        and isinstance(marks, list)
        and all(isinstance(one, str) for one in marks)
        and _is(data.get("at"), float, int)
        and isinstance(data.get("who"), str)
    )
    if not sound:
        raise UnreadableRecordError("it is a seal with something missing, or of a wrong type")
    return Seal(
        number,  # type: ignore[arg-type]
        previous,  # type: ignore[arg-type]
        records,  # type: ignore[arg-type]
        digest,  # type: ignore[arg-type]
        tuple(last) if last is not None else None,
        {writer: tuple(one) for writer, one in heads.items()},  # type: ignore[union-attr]
        marks,  # type: ignore[arg-type]
        data["at"],
        data["who"],
    )


def _is(value: object, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == len(NOTHING) and not set(value) - set("0123456789abcdef")


def _is_place(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is(value[0], int) and _is_digest(value[1])
