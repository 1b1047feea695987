"""What a request to the registry says: its body and its parameters."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, Final, TypeVar

from aiohttp import web

from trunkline.core.serving.bodies import (
    LateBodyError,
    TooLargeError,
    UnreadableBodyError,
    UnsupportedEncodingError,
    read_body,
)
from trunkline.registry import errors
from trunkline.registry.errors import RegistryError
from trunkline.registry.rules import whole_number

T = TypeVar("T")
MAX_BODY: Final = 2 * 1024 * 1024
_RESERVED: Final = frozenset({"__GLOBAL", "__EMPTY"})


async def json_body(request: web.Request) -> dict[str, Any]:
    """The JSON object of the body. Raises RegistryError 400, 408, 413, 415."""
    try:
        body = await read_body(request, MAX_BODY)
    except TooLargeError as error:
        raise RegistryError(413, f"The body has more than {MAX_BODY} bytes") from error
    except UnsupportedEncodingError as error:
        raise RegistryError(415, "The body may be plain, gzip or deflate") from error
    except UnreadableBodyError as error:
        raise RegistryError(400, "The body can't be read") from error
    except LateBodyError as error:
        raise RegistryError(408, "The body did not arrive in time") from error
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RegistryError(400, "The body is no JSON") from error
    if not isinstance(found, dict):
        raise RegistryError(400, "The body is no JSON object")
    return found


def number(body: dict[str, Any], name: str) -> int | None:
    """A number of the body, None where it is absent or -1. Raises RegistryError 422."""
    found = body.get(name)
    if found is None or found == -1:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= 0x7FFFFFFF:
        raise RegistryError(422, f"{name} is a positive number, found {str(found)[:40]!r}")
    return found


def wanted_subject(request: web.Request) -> str:
    """The subject of the path, to be written. Raises RegistryError 42208 for one that Confluent's registry does not take either."""
    found = request.match_info["subject"]
    if found in _RESERVED or any(unicodedata.category(letter) == "Cc" for letter in found) or not _is_text(found):
        raise errors.invalid_subject(found)
    return found


def wanted_id(request: web.Request) -> int:
    """The schema id of the path. Raises RegistryError 404 for what is no number of 32 bits: the path leads nowhere then."""
    found = whole_number(request.match_info["id"])
    if found is None:
        raise RegistryError(404, "HTTP 404 Not Found")
    return found


def flag(request: web.Request, name: str) -> bool:
    """Whether a parameter is true."""
    return request.query.get(name, "").lower() == "true"


def subject_prefix(request: web.Request) -> str:
    """The start of the subjects that are asked for."""
    found = request.query.get("subjectPrefix", "")
    # `:*:` asks for all contexts; there is only the default one.
    return "" if found == ":*:" else found


def which_deleted(request: web.Request) -> str:
    """Whether softly deleted versions count: `no`, `also`, or `only` they."""
    if flag(request, "deletedOnly") or flag(request, "deleted_only"):
        return "only"
    return "also" if flag(request, "deleted") else "no"


def page(request: web.Request, found: list[T]) -> list[T]:
    """The part of a list that `offset` and `limit` ask for."""
    offset = whole_number(request.query.get("offset", "0"))
    limit = whole_number(request.query.get("limit", "-1"))
    if offset is None or limit is None:
        raise RegistryError(404, "HTTP 404 Not Found")
    start = max(0, offset)
    return found[start:] if limit < 0 else found[start : start + limit]


def _is_text(found: str) -> bool:
    try:
        found.encode()
    except UnicodeEncodeError:
        return False
    return True
