"""The mapping at work: an event as a record of the sink's object, as JSON for a request or as cells for a job's CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from sinks.salesforce.delivery import Row
from sinks.salesforce.record import ExternalId, ObjectFields, Target, to_json
from sinks.salesforce.settings import SalesforceSettings
from sinks.salesforce.table import Cells, cell
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.expressions import Expression, compile_expression
from trunkline.core.http import check_header


@dataclass(slots=True)
class Line:
    """A record ready for a job: `place` is its position in the batch, `cells` its CSV row, None where CSV can't carry it."""

    place: int
    identity: object
    cells: Cells | None


class FieldMapping:
    """The settings' fields. `describe` must have been called before records are made."""

    def __init__(self, settings: SalesforceSettings) -> None:
        self._settings = settings
        self._upsert = settings.operation == "upsert"
        self._expressions: dict[str, Expression] = {
            name: compile_expression(text, where=f"config.fields.{name}") for name, text in settings.fields.items()
        }
        self._targets: dict[str, Target] = {}
        self._external_id = ExternalId()

    def describe(self, described: Mapping[str, Any]) -> ExternalId:
        """Checks the fields against the object's describe. Raises `ConfigurationError` with the nearest valid name."""
        fields = ObjectFields(described)
        names = [*self._settings.fields, *filter(None, [self._settings.correlation_field])]
        self._targets = {name: fields.target(name, upsert=self._upsert) for name in names}
        if self._settings.external_id is not None and self._upsert:
            self._external_id = fields.external_id(self._settings.external_id)
        return self._external_id

    @property
    def columns(self) -> list[str]:
        """The header of a job's CSV."""
        return [target.label for target in self._targets.values()]

    @property
    def key_column(self) -> int:
        """Where the external id stands among the columns."""
        return list(self._targets).index(self._settings.external_id or "")

    def row(self, place: int, event: Event) -> Row:
        """The event as a record of a request. Raises `RejectedError`."""
        record: dict[str, Any] = {"attributes": {"type": self._settings.object}}
        identity: object | None = None
        for name, value in self._values(event).items():
            if name == self._settings.external_id and self._upsert:
                identity = self.identity(value)
            if value is not None or self._settings.nulls == "send" or name == self._settings.correlation_field:
                self._targets[name].put(record, value)
        try:
            body = orjson.dumps(record)
        except TypeError as error:
            raise RejectedError(
                f"the record can't be written as JSON: {error}", code="salesforce.value_type"
            ) from error
        return Row(place, body, identity, _sendable(event.correlation_id), _sendable(event.envelope.traceparent))

    def line(self, place: int, event: Event) -> Line:
        """The event as a row of a job. Raises `RejectedError`."""
        values = self._values(event)
        empty = self._settings.nulls == "send"
        cells = [cell(value, empties=empty) for value in values.values()]
        # The result tells the external id as the text that was sent.
        identity = self.identity_of(cells[self.key_column] or "", values[self._settings.external_id or ""])
        return Line(place, identity, None if None in cells else cells)  # type: ignore[arg-type]

    def identity(self, value: Any) -> object:
        """The external id as Salesforce compares it: without the blanks around it, and mostly without regard to case."""
        if value is None or (isinstance(value, str) and not value.strip()):
            name = self._settings.external_id
            raise RejectedError(f"{name}, the external id, is empty", code="salesforce.external_id_empty")
        if isinstance(value, str):
            return value.strip() if self._external_id.case_sensitive else value.strip().casefold()
        return value

    def identity_of(self, text: str, value: Any) -> object:
        """As `identity`, for the text in a CSV. Raises `RejectedError` where `value` is no external id."""
        self.identity(value)
        return self.identity(text) if text.strip() else self.identity(value)

    def _values(self, event: Event) -> dict[str, Any]:
        found = {
            name: to_json(expression.datum(event.value, event), self._targets[name])
            for name, expression in self._expressions.items()
        }
        if self._settings.correlation_field is not None:
            name = self._settings.correlation_field
            found[name] = to_json(event.correlation_id, self._targets[name])
        return found


def _sendable(value: str | None) -> str | None:
    """A value that may stand in a header, else None: a record from elsewhere may carry any bytes as its correlation id."""
    if not value:
        return None
    try:
        check_header("X-Correlation-ID", value)
    except ConfigurationError:
        return None
    return value
