"""Whether a JSON value fits a field, and how Salesforce would store it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Any

from sinks.salesforce.mock.schema import NUMBER_TYPES, TEXT_TYPES, FieldSpec

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


class RequestError(Exception):
    """The whole request is refused: an HTTP status with Salesforce's error body."""

    def __init__(self, status: int, code: str, message: str, fields: list[str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields

    def body(self) -> list[dict[str, Any]]:
        """The answer's body: a list with one error."""
        error: dict[str, Any] = {"message": self.message, "errorCode": self.code}
        if self.fields is not None:
            error["fields"] = self.fields
        return [error]


class RowError(Exception):
    """One record is refused; its neighbours are not."""

    def __init__(self, code: str, message: str, fields: list[str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = fields or []

    def result(self) -> dict[str, Any]:
        """The record's entry in the answer to a collection."""
        return {
            "success": False,
            "errors": [{"statusCode": self.code, "message": self.message, "fields": self.fields}],
        }


def read_value(value: Any, field: FieldSpec) -> Any:
    """The value as the JSON reader of Salesforce takes it.

    A value of the wrong type is refused with JSON_PARSER_ERROR before any record is looked at, and so the whole request is.
    """
    if value is None:
        return None
    if field.type in TEXT_TYPES:
        if isinstance(value, str):
            return value.strip() or None  # blanks around text are cut, and empty text is null
    elif field.type == "boolean":
        if isinstance(value, bool):
            return value
    elif field.type in NUMBER_TYPES:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, (int, float)) and not isinstance(value, bool) and (whole or field.type != "int"):
            return int(value) if field.type == "int" else value
    elif isinstance(value, str):
        try:
            return _moment(value, field.type)
        except ValueError:
            pass
    kind = "VALUE_STRING" if isinstance(value, str) else "VALUE_NUMBER" if isinstance(value, (int, float)) else "START"
    raise RequestError(
        400,
        "JSON_PARSER_ERROR",
        f"Cannot deserialize instance of {field.type} from {kind} value {value} or request may be missing a required field",
    )


def _moment(text: str, kind: str) -> str:
    if kind == "date":
        return date.fromisoformat(text[:10]).isoformat()
    if kind == "time":
        return time.fromisoformat(text).strftime("%H:%M:%S.000Z")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def check_value(name: str, value: Any, field: FieldSpec) -> None:
    """Raises `RowError` for a value that has the right type and still can't be stored."""
    if field.read_only:
        raise RowError(
            "INVALID_FIELD_FOR_INSERT_UPDATE",
            f"Unable to create/update fields: {name}. Please check the security settings of this field and verify that "
            "it is read/write for your profile or permission set.",
            [name],
        )
    if isinstance(value, str) and field.type in TEXT_TYPES - {"reference"} and len(value) > field.length:
        raise RowError("STRING_TOO_LONG", f"{name}: data value too large: {value} (max length={field.length})", [name])
    if field.type == "email" and value and not _EMAIL.fullmatch(value):
        raise RowError("INVALID_EMAIL_ADDRESS", f"{name}: invalid email address: {value}", [name])
