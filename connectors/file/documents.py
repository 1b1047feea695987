"""A JSON document: one object, or a list of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from connectors.file.records import Place
from trunkline.core.contracts import RejectedInput, SourceEvent
from trunkline.core.errors import RejectedError
from trunkline.core.jsonable import to_json_bytes
from trunkline.core.jsontext import any_json_bytes

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was parsed: its items, or why it has none. `identity` are the fields of its progress that vouch for it."""

    items: list[Any]
    problem: str | None = None
    alone: bool = False
    too_large: bool = False
    identity: dict[str, Any] = field(default_factory=dict)


def parse_document(data: bytes, encoding: str) -> Document:
    """The items of a document; those of a list, or the one object itself."""
    try:
        value = orjson.loads(data.removeprefix(_BOM) if encoding in ("utf-8", "ascii") else data.decode(encoding))
    except orjson.JSONDecodeError as error:
        return Document([], f"the file is no JSON: {error.msg} (line {error.lineno}, column {error.colno})")
    except UnicodeDecodeError as error:
        return Document([], f"the file is not {encoding}: byte {error.start}")
    return Document(value) if isinstance(value, list) else Document([value], alone=True)


def item_result(item: Any, number: int, place: Place, *, alone: bool) -> SourceEvent | RejectedInput:
    """The event of one item, or why there is none. `number` counts from 0."""
    where = place.name if alone else f"{place.name}:[{number}]"
    try:
        raw = to_json_bytes(item)
    except RejectedError as error:
        return RejectedInput(any_json_bytes(item), error.message, where)
    if isinstance(item, dict):
        return SourceEvent(item, id=f"{place.tag}-{number}", subject=place.name, raw=raw, place=where)
    return RejectedInput(raw, "the item is no JSON object", where)
