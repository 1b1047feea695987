"""What a file of records looks like: one settings class for each format, told apart by `type`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from trunkline.core.formats.columns import ENVELOPE_COLUMNS
from trunkline.core.settings import Settings, setting
from trunkline.core.uses import FieldUse, RecordUse, Use

EnvelopeField = Literal["id", "source", "type", "time", "subject", "correlation_id", "causation_id"]


class _Table(Settings):
    envelope: list[EnvelopeField] = setting(
        [],
        description="Parts of the envelope to add after the record's own fields, under their CloudEvents header names "
        "(`ce_id`, `ce_correlationid`, …), so that a receiver can say which event a row came from.",
        examples=[["id", "correlation_id"]],
    )


class _Columns(_Table):
    columns: list[str] | None = setting(
        None,
        description="The fields to write, in this order. Without it all fields in the order of the Avro schema. A record "
        "that lacks a named field becomes a dead letter.",
        examples=[["carrier", "flight", "dep_delay"]],
        min_length=1,
    )

    @field_validator("columns")
    @classmethod
    def _no_column_twice(cls, columns: list[str] | None) -> list[str] | None:
        twice = sorted({name for name in columns or [] if (columns or []).count(name) > 1})
        if twice:
            raise ValueError(f"a column is named twice: {', '.join(twice)}")
        return columns


class CsvFormat(_Columns):
    """RFC 4180: UTF-8, `"` doubled within quotes. Dates are ISO 8601, decimals plain, bytes base64, nested values JSON."""

    type: Literal["csv"] = setting("csv", description="Comma-separated values.")
    header: bool = setting(True, description="Whether the first line names the columns.")
    delimiter: str = setting(",", description="What stands between two cells.", examples=[",", ";", "\t"], max_length=1)
    quoting: Literal["minimal", "all"] = setting(
        "minimal", description="Which cells are quoted: those that need it, or all."
    )
    line_ending: Literal["crlf", "lf"] = setting("crlf", description="How a line ends. RFC 4180 says `crlf`.")
    null: str = setting(
        "",
        description="The text for null. With the default an empty string and null look the same.",
        examples=["NULL", "\\N"],
    )
    guard_formulas: bool = setting(
        False,
        description="Whether a text cell that a spreadsheet would run as a formula (it begins with `=`, `+`, `-`, `@`, tab or a "
        "line break, blanks before it or not) gets a leading apostrophe. Switch it on for files that people open in a "
        "spreadsheet; it is off because it changes data that programs read.",
    )

    @field_validator("delimiter")
    @classmethod
    def _one_separator(cls, delimiter: str) -> str:
        if len(delimiter) != 1 or delimiter in '"\r\n\0' or delimiter.isalnum():
            raise ValueError(
                "one character is expected that is no letter, digit, quote or line break, such as , ; or a tab"
            )
        return delimiter


class JsonLinesFormat(_Columns):
    """One JSON object a line, UTF-8. Dates are ISO 8601 text, decimals text, bytes base64."""

    type: Literal["jsonl"] = setting("jsonl", description="JSON Lines.")


class AvroFormat(_Table):
    """An Avro object container file with the schema of the records; of several schemas in one batch the newest.

    Records of an older one are brought to it as an Avro reader would: defaults fill in, fields that are gone are left out.
    """

    type: Literal["avro"] = setting("avro", description="An Avro object container file.")
    codec: Literal["null", "deflate"] = setting("null", description="How blocks are compressed.")


def uses_of_format(shape: AnyFormat, where: str) -> list[Use]:
    """What of an event a file of this form needs: a record, the columns that are named, and names for parts of the envelope."""
    found: list[Use] = []
    columns = None if isinstance(shape, AvroFormat) else shape.columns
    if isinstance(shape, CsvFormat) or columns is not None or shape.envelope:
        found.append(RecordUse(where, tuple(ENVELOPE_COLUMNS[part] for part in shape.envelope)))
    found += [FieldUse((name,), f"{where}.columns[{index}]") for index, name in enumerate(columns or ())]
    return found


AnyFormat = CsvFormat | JsonLinesFormat | AvroFormat


def _spelled_out(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


FileFormat = Annotated[
    AnyFormat,
    Field(discriminator="type"),
    BeforeValidator(_spelled_out, json_schema_input_type=Literal["csv", "jsonl", "avro"] | AnyFormat),
]
"""A field of a settings class: `format: csv`, or `format: {type: csv, delimiter: ";"}`."""
