"""Files of records: CSV, JSON Lines and Avro containers. The same records under the same name give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.core.event import Event
from trunkline.core.formats.avro_container import render_avro
from trunkline.core.formats.csv_file import render_csv
from trunkline.core.formats.json_lines import render_json_lines
from trunkline.core.formats.rendered import Rendered
from trunkline.core.formats.settings import (
    AnyFormat,
    AvroFormat,
    CsvFormat,
    FileFormat,
    JsonLinesFormat,
    uses_of_format,
)

__all__ = [
    "AnyFormat",
    "AvroFormat",
    "CsvFormat",
    "FileFormat",
    "JsonLinesFormat",
    "Rendered",
    "render",
    "uses_of_format",
]


def render(events: Sequence[Event], shape: AnyFormat, name: str) -> Rendered:
    """The file of these events in their order. `name` is the batch's, so that a rebuilt range gives the same bytes.

    Never raises for a record: one that can't be written is in `rejected`, and its neighbours are written.
    """
    if isinstance(shape, CsvFormat):
        return render_csv(events, shape)
    if isinstance(shape, JsonLinesFormat):
        return render_json_lines(events, shape)
    return render_avro(events, shape, name)
