"""Records as JSON Lines (https://jsonlines.org): one value a line, `\\n` after each."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.core.errors import RejectedError
from trunkline.core.event import Event
from trunkline.core.formats.columns import envelope_row, row_reader
from trunkline.core.formats.rendered import Rendered
from trunkline.core.formats.settings import JsonLinesFormat
from trunkline.core.jsonable import to_json_bytes


def render_json_lines(events: Sequence[Event], shape: JsonLinesFormat) -> Rendered:
    """The file of these events. Without `columns` each line has the fields of its own record, in their order."""
    columns, row = row_reader(events, shape.columns)
    lines: list[bytes] = []
    rejected: dict[int, RejectedError] = {}
    for index, event in enumerate(events):
        try:
            value = event.value
            if value is None:
                raise RejectedError("a tombstone has no line", where=event.place, code="file.not_a_record")
            if shape.columns is not None:
                value = dict(zip(columns, row(event), strict=True))
            if shape.envelope:
                if not isinstance(value, dict):
                    raise RejectedError(
                        "only a record can carry its envelope", where=event.place, code="file.not_a_record"
                    )
                value = {**value, **envelope_row(event, shape.envelope)}
            lines.append(to_json_bytes(value) + b"\n")
        except RejectedError as error:
            rejected[index] = error
        except (TypeError, ValueError) as error:
            rejected[index] = RejectedError(
                f"the record has no form in JSON: {error}", where=event.place, code="file.no_form"
            )
    return Rendered(b"".join(lines), len(lines), rejected)
