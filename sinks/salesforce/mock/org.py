"""The records of the stand-in org: validated and stored as Salesforce would, kept over a restart by a journal."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sinks.salesforce.mock.schema import FieldSpec, ObjectSpec, all_fields
from sinks.salesforce.mock.values import RequestError, RowError, check_value, read_value

Record = dict[str, Any]
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
MAX_COLLECTION = 200


def record_id(prefix: str, number: int) -> str:
    """An 18-character id: 15 case-sensitive characters, and three that encode which of those are capitals."""
    body = ""
    while number:
        number, digit = divmod(number, 62)
        body = _DIGITS[digit] + body
    short = prefix + body.rjust(12, "0")
    chunks = (short[at : at + 5] for at in (0, 5, 10))
    return short + "".join(
        _ALPHABET[sum(1 << bit for bit, char in enumerate(chunk) if char.isupper())] for chunk in chunks
    )


class Org:
    """Objects, records, and what was done to them.

    `attempts` counts the records of write requests, `effects` those that were created, changed or deleted. With `journal`,
    each effect is a line of that file, and the records in it are there again after a restart.
    """

    def __init__(self, objects: Mapping[str, ObjectSpec], journal: Path | None = None) -> None:
        self.objects = dict(objects)
        self.tables: dict[str, dict[str, Record]] = {name: {} for name in self.objects}
        self.attempts = 0
        self.effects = {"created": 0, "updated": 0, "deleted": 0}
        self._numbers = itertools.count(1)
        self._prefixes = {
            name: spec.prefix or f"a{number:02d}" for number, (name, spec) in enumerate(self.objects.items(), 1)
        }
        self._external: dict[tuple[str, str], dict[Any, str]] = {}
        self._fields: dict[str, tuple[ObjectSpec, dict[str, FieldSpec]]] = {}
        self._journal = journal
        self._held: list[bytes] | None = None
        if journal is not None and journal.exists():
            self._replay(journal)

    def _replay(self, journal: Path) -> None:
        lines = 0
        raw = journal.read_bytes()
        if raw and not raw.endswith(b"\n"):
            self._write(b"\n")  # or the next line would be lost with the cut one
        for line in raw.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # a line cut by a kill: its answer was never sent
                continue
            lines += 1
            if entry["object"] in self.tables:
                self._put(entry["object"], entry["id"], entry["record"])
        self._numbers = itertools.count(lines + 1)

    # --- names ---

    def object_name(self, name: str) -> str:
        """The object's own spelling. Raises `RequestError` 404 NOT_FOUND."""
        for known in self.objects:
            if known.lower() == name.lower():
                return known
        raise RequestError(404, "NOT_FOUND", "The requested resource does not exist")

    def fields(self, obj: str) -> dict[str, FieldSpec]:
        """All fields of an object, those of every object too."""
        spec = self.objects[obj]
        known = self._fields.get(obj)
        if known is None or known[0] is not spec:
            known = self._fields[obj] = (spec, all_fields(spec))
        return known[1]

    def field(self, obj: str, name: str) -> tuple[str, FieldSpec]:
        """A field's own spelling and its spec. Raises `RequestError` 400 INVALID_FIELD."""
        for known, spec in self.fields(obj).items():
            if known.lower() == name.lower():
                return known, spec
        raise RequestError(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {obj}")

    def external_field(self, obj: str, name: str) -> str:
        """An external id field's own spelling. Raises `RequestError` when the field is none."""
        known, spec = self.field(obj, name)
        if not spec.external_id:
            raise RequestError(
                400, "INVALID_FIELD", f"Field name provided, {known} is not an External ID or indexed field for {obj}"
            )
        return known

    # --- reading ---

    def find(self, obj: str, rid: str) -> Record:
        """A live record by its 15- or 18-character id. Raises `RequestError` 404."""
        table = self.tables[obj]
        record = table.get(rid) or next((row for key, row in table.items() if key[:15] == rid), None)
        if record is None or record["IsDeleted"]:
            raise RequestError(404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible")
        return record

    def find_external(self, obj: str, field: str, value: Any) -> Record | None:
        """A live record by an external id."""
        rid = self._external.get((obj, field), {}).get(self._external_key(obj, field, value))
        return self.tables[obj][rid] if rid is not None else None

    def records(self, obj: str, *, deleted: bool = False) -> list[Record]:
        """All records of an object in the order of their creation; with `deleted`, those in the recycle bin too."""
        return [record for record in self.tables[obj].values() if deleted or not record["IsDeleted"]]

    def full(self, obj: str, record: Mapping[str, Any]) -> Record:
        """A record with every field of its object, null where it has no value, and its attributes."""
        fields = self.fields(obj)
        return {"attributes": self.attributes(obj, record["Id"]), **{name: record.get(name) for name in fields}}

    @staticmethod
    def attributes(obj: str, rid: str) -> dict[str, str]:
        """The `attributes` map that comes with every record."""
        return {"type": obj, "url": f"/services/data/v62.0/sobjects/{obj}/{rid}"}

    # --- writing ---

    def read(self, obj: str, body: Any) -> Record:
        """A request's JSON as a record with the fields' own spelling and types; relations stay maps. Raises `RequestError`."""
        if not isinstance(body, dict):
            raise RequestError(400, "JSON_PARSER_ERROR", "Can not deserialize instance of sobject")
        relations = {
            spec.relationship.lower(): name for name, spec in self.objects[obj].fields.items() if spec.relationship
        }
        record: Record = {}
        for name, value in body.items():
            if name == "attributes":
                continue
            if name.lower() in relations and (value is None or isinstance(value, dict)):
                record[relations[name.lower()]] = self._read_relation(obj, relations[name.lower()], value)
                continue
            known, spec = self.field(obj, name)
            record[known] = read_value(value, spec)
        return record

    def _read_relation(self, obj: str, name: str, value: Record | None) -> Record | None:
        target = self.objects[obj].fields[name].reference_to
        if value is None or target is None:
            return value
        keys = {self.external_field(target, key): content for key, content in value.items() if key != "attributes"}
        return {key: read_value(content, self.objects[target].fields[key]) for key, content in keys.items()}

    def create(self, obj: str, record: Record) -> str:
        """Stores a new record and returns its id. Raises `RowError`."""
        self._check(obj, record, rid=None)
        missing = [name for name, spec in self.objects[obj].fields.items() if spec.required and not record.get(name)]
        if missing:
            raise RowError("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(missing)}]", missing)
        rid = record_id(self._prefixes[obj], next(self._numbers))
        now = _now()
        stamps = {"IsDeleted": False, "CreatedDate": now, "LastModifiedDate": now, "SystemModstamp": now}
        booleans = {name: False for name, spec in self.objects[obj].fields.items() if spec.type == "boolean"}
        self._save(obj, rid, {"Id": rid, **stamps, **booleans, **record})
        self.effects["created"] += 1
        return rid

    def update(self, obj: str, rid: str, changes: Record) -> None:
        """Changes a record. Raises `RowError`."""
        current = self.tables[obj].get(rid)
        if current is None:
            raise RowError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
        if current["IsDeleted"]:
            raise RowError("ENTITY_IS_DELETED", "entity is deleted")
        self._check(obj, changes, rid=rid)
        emptied = [name for name, value in changes.items() if value in (None, "") and self.field(obj, name)[1].required]
        if emptied:
            raise RowError("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(emptied)}]", emptied)
        now = _now()
        self._save(obj, rid, {**current, **changes, "LastModifiedDate": now, "SystemModstamp": now})
        self.effects["updated"] += 1

    def delete(self, rid: str) -> None:
        """Puts a record into the recycle bin. Raises `RowError`."""
        for obj, table in self.tables.items():
            if rid in table:
                if table[rid]["IsDeleted"]:
                    raise RowError("ENTITY_IS_DELETED", "entity is deleted")
                self._save(obj, rid, {**table[rid], "IsDeleted": True})
                self.effects["deleted"] += 1
                return
        raise RowError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")

    def upsert(self, obj: str, field: str, record: Record) -> tuple[str, bool]:
        """Creates or changes the record that has this external id: its id, and whether it is new. Raises `RowError`."""
        if record.get(field) in (None, ""):
            raise RowError("MISSING_ARGUMENT", f"{field} not specified", [])
        found = self.find_external(obj, field, record[field])
        if found is None:
            return self.create(obj, record), True
        self.update(obj, found["Id"], record)
        return found["Id"], False

    def repeated(self, obj: str, field: str, records: Sequence[Record]) -> set[int]:
        """The positions in a request of records that share their external id with another one there."""
        places: dict[Any, list[int]] = {}
        for at, record in enumerate(records):
            if record.get(field) not in (None, ""):
                places.setdefault(self._external_key(obj, field, record[field]), []).append(at)
        return {at for found in places.values() if len(found) > 1 for at in found}

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Undoes everything that was done inside when an error leaves it."""
        tables = {name: dict(table) for name, table in self.tables.items()}
        external = {name: dict(index) for name, index in self._external.items()}
        effects = dict(self.effects)
        self._held = []
        try:
            yield
        except BaseException:
            self.tables, self._external, self.effects, self._held = tables, external, effects, None
            raise
        held, self._held = self._held, None
        self._write(b"".join(held))

    def _check(self, obj: str, record: Record, *, rid: str | None) -> None:
        fields = self.fields(obj)
        for name, value in record.items():
            spec = fields[name]
            if isinstance(value, dict):
                record[name] = self._resolve(spec, value)
                continue
            check_value(name, value, spec)
            if spec.external_id and value not in (None, ""):
                other = self.find_external(obj, name, value)
                if other is not None and other["Id"] != rid:
                    raise RowError(
                        "DUPLICATE_VALUE",
                        f"duplicate value found: {name} duplicates value on record with id: {other['Id'][:15]}",
                    )

    def _resolve(self, spec: FieldSpec, relation: Mapping[str, Any]) -> str:
        target = spec.reference_to or ""
        for known, value in relation.items():
            found = self.find_external(target, known, value)
            if found is None:
                raise RowError(
                    "INVALID_FIELD", f"Foreign key external ID: {value} not found for field {known} in entity {target}"
                )
            return str(found["Id"])
        raise RowError("INVALID_FIELD", "The relationship names no external id")

    def _external_key(self, obj: str, field: str, value: Any) -> Any:
        spec = self.fields(obj)[field]
        return value.casefold() if isinstance(value, str) and not spec.case_sensitive else value

    def _save(self, obj: str, rid: str, record: Record) -> None:
        self._put(obj, rid, record)
        if self._journal is None:
            return
        line = json.dumps({"object": obj, "id": rid, "record": record}).encode() + b"\n"
        if self._held is not None:
            self._held.append(line)
        else:
            self._write(line)

    def _write(self, lines: bytes) -> None:
        if self._journal is not None and lines:
            with self._journal.open("ab") as journal:
                journal.write(lines)

    def _put(self, obj: str, rid: str, record: Record) -> None:
        before = self.tables[obj].get(rid)
        self.tables[obj][rid] = record
        for name, spec in self.objects[obj].fields.items():
            if not spec.external_id:
                continue
            index = self._external.setdefault((obj, name), {})
            if before is not None and before.get(name) not in (None, ""):
                index.pop(self._external_key(obj, name, before[name]), None)
            if record.get(name) not in (None, "") and not record["IsDeleted"]:
                index[self._external_key(obj, name, record[name])] = rid


def each(rows: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """The rows of a collection with their positions. Raises `RequestError` when there are too many."""
    found = list(rows)
    if len(found) > MAX_COLLECTION:
        raise RequestError(
            400,
            "EXCEEDED_ID_LIMIT",
            f"record limit reached. cannot submit more than {MAX_COLLECTION} records into this call",
        )
    return iter(enumerate(found))


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000+0000"
