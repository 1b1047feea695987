"""Records as rows: which columns a file has, and the values of one record under them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from trunkline.core.envelope import (
    CE_CAUSATION_ID,
    CE_CORRELATION_ID,
    CE_ID,
    CE_SOURCE,
    CE_SUBJECT,
    CE_TIME,
    CE_TYPE,
)
from trunkline.core.errors import RejectedError
from trunkline.core.event import AvroSchema, Event

ENVELOPE_COLUMNS = {
    "id": CE_ID,
    "source": CE_SOURCE,
    "type": CE_TYPE,
    "time": CE_TIME,
    "subject": CE_SUBJECT,
    "correlation_id": CE_CORRELATION_ID,
    "causation_id": CE_CAUSATION_ID,
}

Row = Callable[[Event], tuple[Any, ...]]


def newest_schema(events: Sequence[Event]) -> AvroSchema | None:
    """The schema with the highest registry id, else the last one seen; None where no event has one.

    Registries number schemas upwards, so the same range always gives the same answer, whatever the order of events.
    """
    found: dict[int, AvroSchema] = {id(event.schema): event.schema for event in events if event.schema is not None}
    numbered = [schema for schema in found.values() if schema.id is not None]
    if numbered:
        return max(numbered, key=lambda schema: schema.id or 0)
    return next(reversed(found.values()), None)


def fields_of(schema: AvroSchema | None) -> list[dict[str, Any]]:
    """The fields of a record schema, in order; an empty list for anything else."""
    if schema is None or not isinstance(schema.json, Mapping) or schema.json.get("type") != "record":
        return []
    return list(schema.json["fields"])


def file_columns(events: Sequence[Event]) -> list[str]:
    """The fields of the newest schema, then those that only other schemas of the batch have, then those of values without one."""
    seen: dict[str, None] = {field["name"]: None for field in fields_of(newest_schema(events))}
    known: set[int] = set()
    for event in events:
        if event.schema is not None:
            if id(event.schema) in known:
                continue
            known.add(id(event.schema))
            seen.update((field["name"], None) for field in fields_of(event.schema))
        elif isinstance(event.value, Mapping):
            seen.update((str(name), None) for name in event.value)
    return list(seen)


def row_reader(events: Sequence[Event], columns: Sequence[str] | None) -> tuple[list[str], Row]:
    """The columns of a file of these events, and a function that gives one event's values under them.

    With `columns` None they are derived, and a field that an event's own schema does not have takes the newest schema's
    default, else None. The function raises `RejectedError` for a value that is no record or that lacks a field.
    """
    names = list(columns) if columns is not None else file_columns(events)
    defaults = {field["name"]: field.get("default") for field in fields_of(newest_schema(events))}
    fillings: dict[int, dict[str, Any]] = {}
    pick = _picker(names)

    def filling(event: Event) -> dict[str, Any]:
        """What stands in for the columns that the event's schema does not know: nothing where the columns were named."""
        if columns is not None:
            return {}
        found = fillings.get(id(event.schema))
        if found is None:
            own = {field["name"] for field in fields_of(event.schema)}
            found = {name: defaults.get(name) for name in names if name not in own}
            fillings[id(event.schema)] = found
        return found

    def row(event: Event) -> tuple[Any, ...]:
        value = event.value
        if type(value) is not dict:
            raise RejectedError(
                f"a row needs a record, found {_kind(value)}", where=event.place, code="file.not_a_record"
            )
        try:
            return pick(value)
        except KeyError:
            try:
                return pick({**filling(event), **value})
            except KeyError as missing:
                raise RejectedError(
                    f"the record has no field {missing}", where=event.place, code="file.missing_column"
                ) from None

    return names, row


def envelope_row(event: Event, fields: Sequence[str]) -> dict[str, str | None]:
    """The chosen parts of an event's envelope under their CloudEvents header names; the time in RFC 3339.

    Raises `RejectedError` where the record has a field of such a name, because one of the two would be lost.
    """
    envelope = event.envelope
    found: dict[str, str | None] = {}
    for field in fields:
        name = ENVELOPE_COLUMNS[field]
        if isinstance(event.value, Mapping) and name in event.value:
            raise RejectedError(
                f"the record has a field {name!r} of its own", where=event.place, code="file.envelope_clash"
            )
        if field == "time":
            found[name] = envelope.time.isoformat().replace("+00:00", "Z") if envelope.time else None
        else:
            found[name] = getattr(envelope, field)
    return found


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if not names:
        return lambda _value: ()
    if len(names) == 1:
        only = names[0]
        return lambda value: (value[only],)
    return itemgetter(*names)


def _kind(value: Any) -> str:
    return "a tombstone" if value is None else type(value).__name__
