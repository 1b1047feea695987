"""What a request to the registry says: its body and its parameters."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

from aiohttp import web

from trunkline.core.serving.bodies import TooLargeError, UnreadableBodyError, UnsupportedEncodingError, read_body
from trunkline.registry import errors
from trunkline.registry.errors import RegistryError

T = TypeVar("T")
MAX_BODY: Final = 2 * 1024 * 1024


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
    except TimeoutError as error:
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


def wanted_id(request: web.Request) -> int:
    """The schema id of the path. What is no number is an id that no schema has: 40403."""
    found = request.match_info["id"]
    if not (found.isascii() and found.isdigit() and len(found) <= 10):
        raise errors.schema_not_found(found[:40])
    return int(found)


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
    try:
        offset, limit = int(request.query.get("offset", "0")), int(request.query.get("limit", "-1"))
    except ValueError as error:
        raise RegistryError(400, "offset and limit are numbers") from error
    start = max(0, offset)
    return found[start:] if limit < 0 else found[start : start + limit]
