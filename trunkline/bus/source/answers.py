"""What the sender of a request is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] | None = None


def body_of(data: Mapping[str, object]) -> bytes:
    """JSON, as the body of an answer."""
    return orjson.dumps(data)


def unavailable(reason: str) -> Answer:
    """503: nothing was accepted, the sender should try again."""
    return Answer(503, body_of({"error": reason}), headers={"Retry-After": "5"})
