"""Errors as they are answered before any handler is asked."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web


def json_refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error that clients of ours and of Confluent's registry understand."""
    body = orjson.dumps({"error_code": status, "message": reason, "error": reason})
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
