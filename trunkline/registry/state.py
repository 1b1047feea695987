"""The registry's state: what follows from reading `_schemas` from its beginning, record by record.

The records have the format of Confluent's registry, so that either can take the other's topic over: keys are JSON objects with
`keytype` SCHEMA, CONFIG, MODE, DELETE_SUBJECT, CLEAR_SUBJECT or NOOP. One thing is added that others ignore: the value of the
NOOP record may hold `highestId`, because after the schema with the highest id was deleted for good, compaction would let its
id be given again.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from trunkline.registry.errors import MODES
from trunkline.registry.wire import MAX_ID


class Reference(NamedTuple):
    """A named type that a schema uses and another subject's version defines."""

    name: str
    subject: str
    version: int

    def as_dict(self) -> dict[str, Any]:
        """The form of the REST interface and of the topic."""
        return {"name": self.name, "subject": self.subject, "version": self.version}


class SchemaKey(NamedTuple):
    """What makes two registrations the same schema: text and references."""

    text: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a subject."""

    subject: str
    version: int
    id: int
    schema: SchemaKey
    deleted: bool = False
    kind: str = "AVRO"


class Record(NamedTuple):
    """A record of the topic; no value means that the key is forgotten."""

    key: dict[str, Any]
    value: dict[str, Any] | None

    def encoded(self) -> tuple[bytes, bytes | None]:
        """Key and value as bytes. The order of the keys is Confluent's, because a compacted topic compares bytes."""
        value = (
            None if self.value is None else json.dumps(self.value, ensure_ascii=False, separators=(",", ":")).encode()
        )
        return json.dumps(self.key, ensure_ascii=False, separators=(",", ":")).encode(), value


_K = TypeVar("_K", bound=Hashable)
_Place = tuple[str, int]
"""A subject and the number of a version."""


class State:
    """Subjects, versions, ids, compatibility levels and modes. It is changed by `apply` only.

    What its tables hold is replaced and never changed, so that a copy is one of the tables alone.
    """

    def __init__(self) -> None:
        self.subjects: dict[str, Mapping[int, Version]] = {}
        self.by_id: dict[int, SchemaKey] = {}
        self.ids: dict[SchemaKey, int] = {}
        self._places: dict[int, tuple[_Place, ...]] = {}
        """Where a schema is registered, by id."""
        self._users: dict[_Place, tuple[_Place, ...]] = {}
        """The versions that refer to one."""
        self.levels: dict[str | None, str] = {}
        self.modes: dict[str | None, str] = {}
        self.highest_id = 0
        self.unreadable = 0

    def copy(self) -> State:
        """A state of its own, to be read while this one goes on changing."""
        made = State()
        made.subjects = dict(self.subjects)
        made.by_id, made.ids = dict(self.by_id), dict(self.ids)
        made._places, made._users = dict(self._places), dict(self._users)
        made.levels, made.modes = dict(self.levels), dict(self.modes)
        made.highest_id, made.unreadable = self.highest_id, self.unreadable
        return made

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take in one record. What can't be understood is counted in `unreadable` and changes nothing."""
        self.take(read_record(key, value))

    def take(self, record: Record | None) -> None:
        """As `apply`, of a record that was read before: what takes time is done then."""
        try:
            if record is None:
                raise ValueError
            self._apply(record.key, record.value)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            self.unreadable += 1

    def _apply(self, key: dict[str, Any], value: dict[str, Any] | None) -> None:
        kind = key["keytype"]
        if kind == "SCHEMA":
            self._apply_schema(key["subject"], int(key["version"]), value)
        elif kind == "CONFIG":
            _put(self.levels, key.get("subject"), value.get("compatibilityLevel") if value else None)
        elif kind == "MODE":
            mode = value.get("mode") if value else None
            _put(self.modes, key.get("subject"), mode if mode in MODES else None)
        elif kind == "DELETE_SUBJECT":
            if value is not None:
                last = int(value["version"])
                found = self.subjects.get(key["subject"], {})
                if found:
                    self.subjects[key["subject"]] = {
                        number: replace(each, deleted=True) if number <= last else each
                        for number, each in found.items()
                    }
        elif kind == "CLEAR_SUBJECT":
            for number in list(self.subjects.get(key["subject"], {})):
                self._forget(key["subject"], number)
        elif kind == "NOOP":
            if isinstance(value, dict) and isinstance(value.get("highestId"), int) and value["highestId"] <= MAX_ID:
                self.highest_id = max(self.highest_id, value["highestId"])
        else:
            self.unreadable += 1

    def _apply_schema(self, subject: str, number: int, value: dict[str, Any] | None) -> None:
        if value is None:
            self._forget(subject, number)
            return
        references = tuple(
            Reference(str(each["name"]), str(each["subject"]), int(each["version"]))
            for each in value.get("references") or ()
        )
        if not 0 <= int(value["id"]) <= MAX_ID:
            raise ValueError("no id that a record can have")
        made = Version(
            subject,
            number,
            int(value["id"]),
            SchemaKey(str(value["schema"]), references),
            bool(value.get("deleted", False)),
            str(value.get("schemaType") or "AVRO"),
        )
        old = self.subjects.get(subject, {}).get(number)
        if old is not None and (old.id, old.schema) != (made.id, made.schema):
            self._forget(subject, number)
            old = None
        self.subjects[subject] = {**self.subjects.get(subject, {}), number: made}
        if old is None:
            _add(self._places, made.id, (subject, number))
            for place in _referred(made):
                _add(self._users, place, (subject, number))
        self.by_id[made.id] = made.schema
        self.ids.setdefault(made.schema, made.id)
        self.highest_id = max(self.highest_id, made.id)

    def _forget(self, subject: str, number: int) -> None:
        versions = dict(self.subjects.get(subject, {}))
        gone = versions.pop(number, None)
        if gone is None:
            return
        if versions:
            self.subjects[subject] = versions
        else:
            del self.subjects[subject]
        for place in _referred(gone):
            _remove(self._users, place, (subject, number))
        _remove(self._places, gone.id, (subject, number))
        if gone.id not in self._places:
            self.by_id.pop(gone.id, None)
            if self.ids.get(gone.schema) == gone.id:
                del self.ids[gone.schema]

    def versions(self, subject: str, *, deleted: bool = False) -> list[Version]:
        """The versions of a subject in order; with `deleted` the softly deleted ones too."""
        found = sorted(self.subjects.get(subject, {}).items())
        return [each for _, each in found if deleted or not each.deleted]

    def level(self, subject: str) -> str:
        """The compatibility level that holds for a subject."""
        return self.levels.get(subject) or self.levels.get(None) or "BACKWARD"

    def mode(self, subject: str | None) -> str:
        """The mode that holds for a subject; a global READONLY_OVERRIDE stands above all."""
        overall = self.modes.get(None) or "READWRITE"
        if overall == "READONLY_OVERRIDE" or subject is None:
            return overall
        return self.modes.get(subject) or overall

    def uses(self, subject: str, number: int, *, deleted: bool = False) -> list[Version]:
        """The versions that refer to this one."""
        return self._at(self._users.get((subject, number), ()), deleted=deleted)

    def of_id(self, schema_id: int, *, deleted: bool = False) -> list[Version]:
        """Where a schema is registered."""
        return self._at(sorted(self._places.get(schema_id, ())), deleted=deleted)

    def _at(self, places: Iterable[_Place], *, deleted: bool) -> list[Version]:
        found = (self.subjects[subject][number] for subject, number in places)
        return [each for each in found if deleted or not each.deleted]


def read_record(key: bytes | None, value: bytes | None) -> Record | None:
    """A record of the topic; None for one that is no JSON."""
    try:
        return Record(json.loads(key or b""), None if value is None else json.loads(value))
    except (ValueError, RecursionError):
        return None


def schema_record(each: Version) -> Record:
    """The record of one version, as Confluent's registry writes it."""
    key = {"keytype": "SCHEMA", "subject": each.subject, "version": each.version, "magic": 1}
    value: dict[str, Any] = {"subject": each.subject, "version": each.version, "id": each.id}
    if each.kind != "AVRO":
        value["schemaType"] = each.kind
    if each.schema.references:
        value["references"] = [ref.as_dict() for ref in each.schema.references]
    return Record(key, value | {"schema": each.schema.text, "deleted": each.deleted})


def forget_record(subject: str, number: int) -> Record:
    """The record that deletes a version for good."""
    return Record({"keytype": "SCHEMA", "subject": subject, "version": number, "magic": 1}, None)


def delete_subject_record(subject: str, number: int | None) -> Record:
    """The record that softly deletes all versions up to `number`, or forgets that."""
    value = None if number is None else {"subject": subject, "version": number}
    return Record({"keytype": "DELETE_SUBJECT", "subject": subject, "magic": 0}, value)


def level_record(subject: str | None, level: str | None) -> Record:
    """The record that sets a compatibility level, or forgets it."""
    value = None if level is None else {"compatibilityLevel": level}
    return Record({"keytype": "CONFIG", "subject": subject, "magic": 0}, value)


def mode_record(subject: str | None, mode: str | None) -> Record:
    """The record that sets a mode, or forgets it."""
    return Record({"keytype": "MODE", "subject": subject, "magic": 0}, None if mode is None else {"mode": mode})


def highest_id_record(highest: int) -> Record:
    """The record that keeps an id from being given again."""
    return Record({"keytype": "NOOP", "magic": 0}, {"highestId": highest})


def _put(table: dict[str | None, str], subject: str | None, value: str | None) -> None:
    if value is None:
        table.pop(subject, None)
    else:
        table[subject] = value


def _referred(version: Version) -> set[_Place]:
    return {(ref.subject, ref.version) for ref in version.schema.references}


def _add(table: dict[_K, tuple[_Place, ...]], key: _K, place: _Place) -> None:
    table[key] = (*table.get(key, ()), place)


def _remove(table: dict[_K, tuple[_Place, ...]], key: _K, place: _Place) -> None:
    left = tuple(each for each in table.get(key, ()) if each != place)
    if left:
        table[key] = left
    else:
        table.pop(key, None)
