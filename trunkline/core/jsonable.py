"""Avro values as JSON: the one rule for all sinks, request bodies and templates.

Dates, times and timestamps become ISO 8601 text (UTC as `Z`), `Decimal` becomes text with all its digits, bytes become
base64 (RFC 4648, section 4), a UUID its usual text. NaN and infinities become null: JSON has no numbers for them.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson

from trunkline.core.errors import RejectedError
from trunkline.core.jsontext import any_json_bytes

_OPTIONS = orjson.OPT_UTC_Z
_TOO_DEEP = "Recursion limit reached"


def to_json_bytes(value: Any, *, sort_keys: bool = False) -> bytes:
    """`value` as compact UTF-8 JSON. Raises `RejectedError` (`record.not_json`) for what JSON can't hold.

    That is: a number beyond 64 bits, text with lone surrogates, a map key that is no text, nesting beyond 254 levels.
    """
    try:
        return orjson.dumps(value, default=_plain, option=_OPTIONS | orjson.OPT_SORT_KEYS if sort_keys else _OPTIONS)
    except orjson.JSONEncodeError as error:
        said = str(error)
        reason = "it is nested deeper than 254 levels" if said == _TOO_DEEP else said
        raise RejectedError(f"the value can't be written as JSON: {reason}", code="record.not_json") from None


def to_jsonable(value: Any) -> Any:
    """`value` with JSON's own types only, by the same rule. Raises as `to_json_bytes` does."""
    return orjson.loads(to_json_bytes(value))


def note_bytes(note: Any) -> bytes:
    """What we note of our own work (a trace, a report, an audit entry) as JSON. It has other people's text in it: names of files, answers
    of servers. A sign that UTF-8 has no bytes for is written as its escape, and the like, because nothing may end for want of a note.
    """
    try:
        return orjson.dumps(note)
    except orjson.JSONEncodeError:
        return any_json_bytes(note)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} has no JSON form")
