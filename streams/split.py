"""The `split` step: one event for each element of a list."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from pydantic import field_validator

from streams.parts import parts_of
from trunkline.core.avro.assignment import settled
from trunkline.core.avro.records import RecordSchema, branches_of, is_name
from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.settings import Settings, setting


class SplitSettings(Settings):
    """Which list is split, and what each part takes along. `split: items` is short for `split: {field: items}`."""

    field: str = setting(description="The field that holds the list.", examples=["items"], min_length=1)
    keep: list[str] = setting(
        [], description="Fields of the whole that every part gets too.", examples=[["order_id", "customer"]]
    )
    into: str | None = setting(
        None,
        description="For a list of scalars: the field of the part that holds the element. Default: the list's own name.",
        examples=["tag"],
    )

    @field_validator("into")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not is_name(value):
            raise ValueError(f"{value!r} can't be a field's name")
        return value


class SplitStep(Step):
    """Makes one event of each element: a record is the part's value, a scalar a field of it.

    The n-th part (from 0) has the id of the whole with `.n`, so a replay makes the same parts. A list that is empty or null
    makes none: the event is filtered.
    """

    settings_type = SplitSettings
    summary: ClassVar[str] = "Makes one event of each element of a list."
    shorthand: ClassVar[str | None] = "field"

    settings: SplitSettings
    _records: bool | None = None

    def prepare(self, context: StepContext) -> Any | None:
        self._records = None  # without a schema, each element tells
        if context.schema is None:
            return context.target
        settings = self.settings
        schema = RecordSchema(context.schema, context.where)
        field = schema.field(settings.field)
        kept = [schema.field(name) for name in settings.keep]
        lists = [one for one in branches_of(field["type"]) if isinstance(one, dict) and one["type"] == "array"]
        if len(lists) != 1 or "." in settings.field or any("." in name for name in settings.keep):
            raise ConfigurationError(
                f"{settings.field!r} is no list"
                if len(lists) != 1
                else "`field` and `keep` name fields of the record itself",
                where=context.where,
                hint="name an array field of the record; `flatten` brings nested ones up",
                code="split.not_a_list",
            )
        element = lists[0]["items"]
        record = schema.record_in(element)
        self._records = record is not None and not isinstance(element, list)
        if self._records:
            assert record is not None
            return self._of_records(schema, record, kept, context)
        return self._of_scalars(schema, element, kept, context)

    def _of_records(self, schema: RecordSchema, record: str, kept: list[dict[str, Any]], context: StepContext) -> Any:
        schema.name = record
        if kept:
            own = {field["name"] for field in schema.fields}
            twice = next((field["name"] for field in kept if field["name"] in own), None)
            if twice is not None:
                raise ConfigurationError(
                    f"the element has a field {twice!r} too",
                    where=f"{context.where}.keep",
                    hint="rename one of them with `map` first",
                    code="split.name_taken",
                )
            schema.rename(context)
            schema.fields = [*(copy.deepcopy(field) for field in kept), *schema.fields]
        return settled(schema, context)

    def _of_scalars(self, schema: RecordSchema, element: Any, kept: list[dict[str, Any]], context: StepContext) -> Any:
        into = self.settings.into or self.settings.field
        if any(field["name"] == into for field in kept):
            raise ConfigurationError(
                f"{into!r} is kept too", where=f"{context.where}.keep", hint="say `into`", code="split.name_taken"
            )
        schema.rename(context)
        schema.fields = [*kept, {"name": into, "type": element}]
        return settled(schema, context)

    def process(self, event: Event) -> list[Event] | None:
        settings, whole = self.settings, event.value
        elements = whole.get(settings.field)
        if not elements:
            return None
        if not isinstance(elements, list):
            raise RejectedError(f"{settings.field!r} is no list", code="split.not_a_list")
        into = settings.into or settings.field
        kept = {name: whole[name] for name in settings.keep if name in whole}
        # Parts are changed in place by later steps, so no two of them may share a list or a record.
        owned = [name for name, value in kept.items() if isinstance(value, (dict, list))]
        values = []
        for element in elements:
            own = kept | {name: copy.deepcopy(kept[name]) for name in owned} if owned else kept
            as_record = isinstance(element, dict) if self._records is None else self._records
            values.append({**own, **element} if as_record else {**own, into: element})
        return parts_of(event, values)
