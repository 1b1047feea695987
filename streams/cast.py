"""The `cast` step: turns fields into other types, strictly."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import field_validator

from streams.conversions import Conversion, conversion
from trunkline.core.avro.assignment import settled
from trunkline.core.avro.records import RecordSchema, branches_of, holder, like, logical_or_kind, walk_to
from trunkline.core.casting_scalars import Cast, MismatchError
from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.plain import PlainWork
from trunkline.core.settings import Settings, setting


class CastSettings(Settings):
    """Which fields become what. `cast: {delay: int}` is short for `cast: {fields: {delay: int}}`."""

    fields: dict[str, str] = setting(
        description="The fields with their new types: int, long, float, double, string, boolean, bytes, date, timestamp, timestamp(s), "
        "timestamp(ms), timestamp(us) or decimal(PRECISION, SCALE); `a.b` is the field b of the record a.",
        examples=[{"dep_delay": "int", "price": "decimal(9, 2)", "sent": "timestamp(ms)"}],
        min_length=1,
    )

    @field_validator("fields")
    @classmethod
    def _types_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        for form in value.values():
            conversion(form)
        return value


class CastStep(Step):
    """Converts values one by one. Null stays null; a value that is not plainly one of the new type rejects the record."""

    settings_type = CastSettings
    summary: ClassVar[str] = "Turns fields into other types, strictly."
    shorthand: ClassVar[str | None] = "fields"

    settings: CastSettings
    _plan: list[tuple[tuple[str, ...], str, str, Cast]]

    def prepare(self, context: StepContext) -> Any | None:
        conversions = {path: conversion(form) for path, form in self.settings.fields.items()}
        self._plan = [(*walk_to(path), path, found.cast) for path, found in conversions.items()]
        if context.schema is None:
            return context.target
        schema = RecordSchema(context.schema, context.where)
        before = schema.json()
        for path, found in conversions.items():
            kind = schema.field(path)["type"]
            _check_possible(schema, path, kind, found, self.settings.fields[path])
            schema.set_type(path, like(kind, found.avro), context)
        if schema.json() == before:
            return context.schema
        schema.rename(context)
        return settled(schema, context)

    def process(self, event: Event) -> Event:
        if self._cast(event.value):
            event.changed = True
        return event

    def plain(self) -> PlainWork | None:
        return PlainWork(self._cast, changes=True)

    def _cast(self, value: Any, _context: Any = None) -> bool:
        """Whether anything was there to be converted."""
        changed = False
        for parents, name, path, cast in self._plan:
            record = holder(value, parents) if parents else value
            if record is None:
                continue
            found = record.get(name)
            if found is None:
                continue
            try:
                record[name] = cast(found)
            except MismatchError as error:
                error.inside(path)
                raise RejectedError(error.sentence(), code="record.cast") from None
            changed = True
        return changed


def _check_possible(schema: RecordSchema, path: str, kind: Any, found: Conversion, form: str) -> None:
    names = [logical_or_kind(branch) for branch in branches_of(kind)]
    names = [str(schema.named[name]["type"]) if name in schema.named else name for name in names]
    if names and not any(name in found.takes for name in names):
        hint = "say the unit of the number: timestamp(s), timestamp(ms) or timestamp(us)"
        raise ConfigurationError(
            f"{path!r} is {' or '.join(names)}, which can't become {form}",
            where=f"{schema.where}.{path}",
            hint=hint if form == "timestamp" and {*names} & {"int", "long"} else "compute it with `map`",
            code="cast.impossible",
        )
