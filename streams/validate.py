"""The `validate` step: refuses records that break a schema or a rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from fastavro.validation import ValidationError, validate
from pydantic import Field, model_validator

from streams.avro_file import parsed, schema_of, with_schema_in_place
from trunkline.core.avro.choices import has_nested_choices
from trunkline.core.avro.fitting import Fitting
from trunkline.core.avro.records import RecordSchema
from trunkline.core.casting_scalars import MismatchError
from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import RejectedError
from trunkline.core.event import Event
from trunkline.core.expressions import BOOL, compile_expression
from trunkline.core.settings import Settings, setting

_SHOWN_ERRORS = 3


class Rule(Settings):
    """One thing that must not be."""

    when: str = setting(
        description="A CEL expression; a record for which it is true is refused.",
        examples=["event.arrival < event.departure"],
        min_length=1,
    )
    message: str = setting(
        description="The reason that the dead letter gets.", examples=["arrives before it departs"], min_length=1
    )


class ValidateSettings(Settings):
    """A schema, rules, or both; the schema is checked first."""

    schema_: str | dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="An Avro schema that the value must fit, with no fields besides: an .avsc file (a relative path starts at the "
        "manifest's folder), or the schema itself. Fields with a default may be absent.",
        examples=["schemas/strict_order.avsc"],
    )
    rules: list[Rule] = setting(
        [],
        description="What must not be, checked in order; the first that is broken is the reason.",
        examples=[[{"when": "event.quantity <= 0", "message": "the quantity must be positive"}]],
    )

    @model_validator(mode="after")
    def _checks_something(self) -> ValidateSettings:
        if self.schema_ is None and not self.rules:
            raise ValueError("give `schema`, `rules` or both")
        return self


class ValidateStep(Step):
    """Lets good records go on unchanged, and rejects bad ones with the field or the rule's message."""

    settings_type = ValidateSettings
    summary: ClassVar[str] = "Refuses records that break a schema or a rule."
    changes: ClassVar[bool] = False

    settings: ValidateSettings
    _schema: Any | None
    _fitting: Fitting | None
    _fields: tuple[frozenset[str], frozenset[str]]
    _rules: list[tuple[Callable[[Any, Any], Any], str]]

    @classmethod
    def without_files(cls, raw: Any, folder: Path) -> Any:
        return with_schema_in_place(raw, folder)

    def prepare(self, context: StepContext) -> Any | None:
        declared = self.settings.schema_
        self._schema = None
        if declared is not None:
            found = schema_of(declared, context, "schema")
            self._schema = parsed(found, "the schema", f"{context.where}.schema")
            RecordSchema(found, f"{context.where}.schema")  # raises for what is no record
            self._fields = _required_and_known(self._schema)
            self._fitting = Fitting(self._schema) if has_nested_choices(found) else None
        self._rules = [
            (
                compile_expression(
                    rule.when, schema=context.schema, expect=BOOL, where=f"{context.where}.rules[{index}].when"
                ).fn,
                rule.message,
            )
            for index, rule in enumerate(self.settings.rules)
        ]
        return context.schema

    def process(self, event: Event) -> Event:
        value = event.value
        if self._schema is not None:
            required, known = self._fields
            if not required <= value.keys() <= known:
                raise RejectedError(_names_reason(value, required, known), code="record.invalid")
            try:
                if self._fitting is None:
                    validate(value, self._schema)
                else:
                    self._fitting.with_branches(value, whole=True)
            except ValidationError as error:
                raise RejectedError(_reason(error), code="record.invalid") from None
            except MismatchError as error:
                raise RejectedError(
                    f"the value does not fit the schema: {error.sentence()}", code="record.invalid"
                ) from None
        for broken, message in self._rules:
            if broken(value, event) is True:
                raise RejectedError(message, code="record.rule")
        return event


def _required_and_known(schema: Any) -> tuple[frozenset[str], frozenset[str]]:
    fields = schema.get("fields", ()) if isinstance(schema, dict) else ()
    required = frozenset(str(field["name"]) for field in fields if "default" not in field)
    return required, frozenset(str(field["name"]) for field in fields)


def _names_reason(value: dict[str, Any], required: frozenset[str], known: frozenset[str]) -> str:
    missing = sorted(required - value.keys())
    if missing:
        return f"the value does not fit the schema: field {missing[0]!r} is missing"
    return f"the value does not fit the schema: it has no field {min(value.keys() - known)[:60]!r}"


def _reason(error: ValidationError) -> str:
    """The first errors, without namespaces and without the values, which may be anybody's."""
    found = []
    for one in error.errors[:_SHOWN_ERRORS]:
        wanted = one.schema if isinstance(one.schema, str) else one.schema.get("type", "another type")
        kind = "null" if one.datum is None else type(one.datum).__name__
        found.append(f"{f'field {one.field!r}' if one.field else 'it'} is {kind}, expected {wanted}")
    more = len(error.errors) - len(found)
    return "the value does not fit the schema: " + "; ".join(found) + (f"; and {more} more" if more > 0 else "")
