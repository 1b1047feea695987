"""The columns of a job's CSV: which field each one sets, and what its text means.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/datafiles_prepare_csv.htm
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sinks.salesforce.mock.org import Org
from sinks.salesforce.mock.schema import NUMBER_TYPES, TEXT_TYPES, FieldSpec
from sinks.salesforce.mock.values import RequestError, RowError, read_value

NULL = "#N/A"
"""A cell that empties its field. An empty cell leaves the field as it is."""
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a field, or with `relation` the external id of a parent."""

    name: str
    spec: FieldSpec
    relation: str | None = None

    def put(self, record: dict[str, Any], cell: str) -> None:
        """Sets the field. Raises `RowError` for a text that the field can't hold."""
        if not cell:
            return
        value = None if cell == NULL else self._value(cell)
        if self.relation is None:
            record[self.name] = value
        else:
            record[self.relation] = None if value is None else {self.name: value}

    def _value(self, cell: str) -> Any:
        kind = self.spec.type
        try:
            if kind in TEXT_TYPES:
                return cell.strip() or None
            if kind == "boolean":
                return _BOOLEANS[cell.lower()]
            if kind in NUMBER_TYPES:
                number = float(cell)
                if not math.isfinite(number):
                    raise ValueError(cell)
                return int(number) if number.is_integer() and abs(number) < 2**53 else number
            return read_value(cell, self.spec)
        except (ValueError, KeyError, RequestError) as error:
            raise RowError(
                "INVALID_TYPE_ON_FIELD_IN_RECORD", f"{self.name}: value not of required type: {cell}", [self.name]
            ) from error


def columns_of(org: Org, obj: str, header: Sequence[str]) -> list[Column]:
    """The columns that a header names. Raises `RequestError` for a field that the object does not have."""
    relations = {
        spec.relationship.lower(): (name, spec) for name, spec in org.objects[obj].fields.items() if spec.relationship
    }
    found = []
    for label in header:
        relation, _, name = label.rpartition(".")
        if relation:
            if relation.lower() not in relations:
                raise RequestError(400, "InvalidBatch", f"Field name not found : {label}")
            own, spec = relations[relation.lower()]
            known = org.external_field(spec.reference_to or "", name)
            found.append(Column(known, org.fields(spec.reference_to or "")[known], own))
            continue
        try:
            known, spec = org.field(obj, name)
        except RequestError as error:
            raise RequestError(400, "InvalidBatch", f"Field name not found : {label}") from error
        found.append(Column(known, spec))
    return found
