"""How far a request came and what ended it, whichever way it went; `client.py` makes of it what callers are told."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import ServerDisconnectedError


class Call:
    """One request on its way: the host that was asked for, and how far it came."""

    __slots__ = ("connected", "host", "refused")

    def __init__(self, host: str) -> None:
        self.host = host
        self.connected = False
        self.refused: str | None = None


@dataclass(slots=True)
class Answer:
    """An answer as it was received, its body without framing. `headers` are case-insensitive."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class LostError(Exception):
    """The connection ended after it was made. Not aiohttp's own class, because its session sends again after those."""


class BadAnswerError(Exception):
    """What came is no HTTP, or says of its own length two things."""


class BadCodingError(Exception):
    """The body is not what its `Content-Encoding` says, or is incomplete."""


class TooLongError(Exception):
    """The body is longer than the limit. `status` is what the status line said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def cause(error: BaseException) -> str:
    """What went wrong in a few words, without the URL that aiohttp's own messages may quote."""
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(inner, LostError):
        return str(inner)
    if isinstance(inner, ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(inner, ssl.SSLError):
        return f"TLS: {getattr(inner, 'verify_message', '') or inner.reason or type(inner).__name__}"
    if isinstance(inner, OSError):
        return inner.strerror or str(inner) or type(inner).__name__
    if isinstance(inner, (aiohttp.ClientPayloadError, BadCodingError)):
        return "the answer's body is incomplete or badly encoded"
    if isinstance(inner, (aiohttp.ClientResponseError, BadAnswerError)):
        return "the answer is not HTTP, or its headers are too large"
    return type(inner).__name__
