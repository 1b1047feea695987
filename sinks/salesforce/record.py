"""From an event to an sObject record: the mapping's fields, checked against the object's describe, and their JSON values.

Forms of values: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_valid_date_formats.htm and
https://developer.salesforce.com/docs/atlas.en-us.object_reference.meta/object_reference/primitive_data_types.htm
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from trunkline.core.errors import ConfigurationError, RejectedError, did_you_mean

_NUMBERS = frozenset({"double", "currency", "percent", "int", "long"})


@dataclass(frozen=True, slots=True)
class Target:
    """A field that the mapping sets. `relation` is set for `relation.name`, a lookup by the parent's external id.

    `type` is Salesforce's type of the field, `any` where describe can't tell (a field of a parent).
    """

    name: str
    type: str = "any"
    relation: str | None = None

    @property
    def label(self) -> str:
        """As the manifest writes it."""
        return f"{self.relation}.{self.name}" if self.relation else self.name

    def put(self, record: dict[str, Any], value: Any) -> None:
        """Sets the value in an sObject record. A null relation is cleared by a null, not by a parent with a null key."""
        if self.relation is None:
            record[self.name] = value
        else:
            record[self.relation] = None if value is None else {self.name: value}


@dataclass(frozen=True, slots=True)
class ExternalId:
    """Whether an external id tells capitals apart, and whether Salesforce itself refuses a second record with the same one."""

    case_sensitive: bool = False
    unique: bool = True


class ObjectFields:
    """The fields of an object, as its describe resource tells them."""

    def __init__(self, describe: Mapping[str, Any]) -> None:
        fields = [field for field in describe.get("fields", ()) if isinstance(field, Mapping) and "name" in field]
        self._object = str(describe.get("name", ""))
        self._fields = {str(field["name"]): field for field in fields}
        self._relations = {str(field["relationshipName"]) for field in fields if field.get("relationshipName")}

    def target(self, label: str, *, upsert: bool) -> Target:
        """The field of that name. Raises `ConfigurationError` (`salesforce.field`) when there is none that can be written."""
        relation, _, name = label.rpartition(".")
        if relation:
            if relation not in self._relations:
                raise self._error(
                    label, f"no relationship {relation!r}", did_you_mean(relation, self._relations or {"(none)"})
                )
            return Target(name, relation=relation)
        field = self._fields.get(name)
        if field is None:
            raise self._error(label, f"no field {name!r}", did_you_mean(name, self._fields))
        if not field.get("createable") or (upsert and not field.get("updateable")):
            raise self._error(
                label, f"{name} can't be written", "check the field-level security of the app's user, or leave it out"
            )
        return Target(name, str(field.get("type", "any")))

    def external_id(self, name: str) -> ExternalId:
        """What the external id `name` can tell apart. Raises `ConfigurationError` when the field is no external id."""
        field = self._fields.get(name, {})
        if not field.get("externalId"):
            marked = [known for known, found in self._fields.items() if found.get("externalId")]
            raise ConfigurationError(
                f"{self._object}.{name} is not marked as an external id",
                where="config.external_id",
                hint=did_you_mean(name, marked),
                code="salesforce.external_id",
            )
        return ExternalId(case_sensitive=bool(field.get("caseSensitive")), unique=bool(field.get("unique")))

    def _error(self, label: str, what: str, hint: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._object} has {what}" if what.startswith("no ") else f"{self._object}.{what}",
            where=f"config.fields.{label}",
            hint=hint,
            code="salesforce.field",
        )


def to_json(value: Any, target: Target) -> Any:
    """The JSON value of a field. Raises `RejectedError` for a value that the field can't hold.

    Checked here because Salesforce refuses a whole request for one value of the wrong type.
    """
    if value is None:
        return None
    kind = target.type
    if kind == "boolean":
        return _need(isinstance(value, bool), value, target, "a boolean")
    if kind in _NUMBERS:
        return _number(value, target)
    if kind == "date":
        return _date(value, target)
    if kind == "datetime":
        return _moment(value, target)
    if kind == "time":
        return _time_of_day(value, target)
    if kind == "any":
        return _plain(value, target)
    return _text(value, target)


def _need(fits: bool, value: Any, target: Target, expected: str) -> Any:
    if not fits:
        raise RejectedError(
            f"{target.label} takes {expected}, found {type(value).__name__}", code="salesforce.value_type"
        )
    return value


def _number(value: Any, target: Target) -> int | float:
    _need(isinstance(value, (int, float, Decimal)) and not isinstance(value, bool), value, target, "a number")
    if not math.isfinite(value):
        raise RejectedError(f"{target.label} can't hold {value}", code="salesforce.value_type")
    if isinstance(value, int) or value == int(value):
        # Beyond 64 bits JSON writers differ, and Salesforce keeps no more than a double.
        return int(value) if -(2**63) <= value < 2**63 else float(value)
    if target.type == "int":
        raise RejectedError(f"{target.label} takes a whole number, found {value}", code="salesforce.value_type")
    return float(value)


def _date(value: Any, target: Target) -> str:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            raise _unreadable(target, "a date such as 2013-01-31") from None
    if isinstance(value, datetime):
        return str(_aware(value, target).astimezone(UTC).date().isoformat())
    _need(isinstance(value, date), value, target, "a date")
    return str(value.isoformat())


def _moment(value: Any, target: Target) -> str:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _unreadable(target, "a time such as 2013-01-31T05:15:00Z") from None
    _need(isinstance(value, datetime), value, target, "a timestamp")
    return _aware(value, target).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time_of_day(value: Any, target: Target) -> str:
    if isinstance(value, str):
        try:
            value = time.fromisoformat(value)
        except ValueError:
            raise _unreadable(target, "a time of day such as 05:15:00") from None
    _need(isinstance(value, time), value, target, "a time of day")
    return f"{value:%H:%M:%S}.{value.microsecond // 1000:03d}Z"


def _text(value: Any, target: Target) -> str:
    if isinstance(value, str):
        return value
    if target.type == "multipicklist" and isinstance(value, (list, tuple)):
        return ";".join(_text(item, Target(target.name)) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray)):
        _need(target.type == "base64", value, target, "text")
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return _moment(value, target)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(_need(isinstance(value, (int, float, UUID)), value, target, "text"))


def _plain(value: Any, target: Target) -> Any:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float, Decimal)):
        return _number(value, target)
    return _text(value, target)


def _aware(value: datetime, target: Target) -> datetime:
    if value.tzinfo is None:
        raise RejectedError(
            f"{target.label} takes a time with its zone, found one without", code="salesforce.value_type"
        )
    return value


def _unreadable(target: Target, expected: str) -> RejectedError:
    # The value itself stays out of the reason: it may be personal data, and the dead letter holds it anyway.
    return RejectedError(f"{target.label} takes {expected}, found text of another form", code="salesforce.value_type")
