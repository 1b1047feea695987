"""What is to be done when the schemas' topic was deleted and made anew while a registry knows what it had.

Records in other topics name these ids for as long as they are kept, so what is missing is written back as it was.
"""

from __future__ import annotations

from trunkline.registry.state import (
    Record,
    State,
    highest_id_record,
    level_record,
    mode_record,
    schema_record,
)


class OtherSchemasError(Exception):
    """The new topic has given ids to other schemas: nothing can tell which of the two a record means."""


def records_missing(known: State, found: State) -> list[Record]:
    """The records of what `known` has and `found` has not. Raises OtherSchemasError where they contradict each other."""
    for schema_id, schema in known.by_id.items():
        other = found.by_id.get(schema_id)
        if other is not None and other != schema:
            raise OtherSchemasError(f"schema id {schema_id} was {_short(schema.text)} and is {_short(other.text)}")
    records: list[Record] = []
    for subject, versions in sorted(known.subjects.items()):
        there = found.subjects.get(subject, {})
        for number, version in sorted(versions.items()):
            if number not in there:
                records.append(schema_record(version))
            elif there[number].id != version.id:
                raise OtherSchemasError(
                    f"version {number} of {subject} had the schema id {version.id} and has {there[number].id}"
                )
    records += [level_record(subject, level) for subject, level in known.levels.items() if subject not in found.levels]
    records += [mode_record(subject, mode) for subject, mode in known.modes.items() if subject not in found.modes]
    if known.highest_id > found.highest_id:
        records.append(highest_id_record(known.highest_id))
    return records


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"
