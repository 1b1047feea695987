"""Reading a request's body within limits that hold on the wire, decompressed, in time, and for all senders together."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import web

from trunkline.core.serving.connections import complete, expect

BODY_SECONDS = 10.0
_BEHIND = "there are bytes behind the end of the compressed body"


class BodyError(Exception):
    """A body that was not read. What it is of, by its class, is the sender's doing and never a fault of ours."""


class LateBodyError(BodyError):
    """The body did not arrive in time."""


class TooLargeError(BodyError):
    """The body is larger than it may be, on the wire or decompressed."""


class UnsupportedEncodingError(BodyError):
    """The body is encoded in a way that is not taken."""


class UnreadableBodyError(BodyError):
    """The body is cut off, or is not what its encoding says."""


class NoRoomError(BodyError):
    """The bodies of all requests are as large together as they may be."""


class Bodies:
    """How many bytes of bodies are held, and may be."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


class Taken:
    """What one request has of them, until it is answered."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def take(self, size: int) -> None:
        """Counts another part of the body. Raises NoRoomError; then the part is not counted."""
        if self._bodies.held + size > self._bodies.most:
            raise NoRoomError
        self._bodies.held += size
        self._size += size

    def give_back(self) -> None:
        """The request is answered."""
        self._bodies.held -= self._size
        self._size = 0


async def read_body(
    request: web.BaseRequest, limit: int, taken: Taken | None = None, *, seconds: float = BODY_SECONDS
) -> bytes:
    """The body, decompressed.

    Raises TooLargeError as soon as more than `limit` bytes have come or come out, UnsupportedEncodingError for other encodings than
    gzip and deflate, UnreadableBodyError, NoRoomError, and LateBodyError where it is not complete in `seconds`: each is a BodyError.
    """
    unpack = _unpacker(request)
    expect(request, limit)
    if request.content_length is not None and request.content_length > limit:
        raise TooLargeError
    parts: list[bytes] = []
    came = size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.content.iter_any():
                came += len(chunk)
                part = chunk if unpack is None else unpack.take(chunk, limit - size)
                size += len(part)
                # I36: what comes is bounded as well as what comes out of it. A stream that has ended swallows bytes without a trace.
                if came > limit or size > limit:
                    raise TooLargeError
                # I27: bodies are bounded for all senders together: who comes when there is no room is told to come again.
                if taken is not None:
                    taken.take(len(part))
                parts.append(part)
    except TimeoutError as error:
        raise LateBodyError from error
    except (web.RequestPayloadError, ConnectionError, zlib.error) as error:
        raise UnreadableBodyError(str(error)) from error
    if unpack is not None and came and not unpack.ended:
        raise UnreadableBodyError("the compressed body is cut off")
    complete(request)
    return b"".join(parts)


def _unpacker(request: web.BaseRequest) -> _Unpacker | None:
    # Several are one after the other, in as many headers as they like (RFC 9110, section 8.4).
    encoding = ", ".join(request.headers.getall("Content-Encoding", ["identity"])).strip().lower()
    if encoding in ("identity", ""):
        return None
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedEncodingError(encoding)
    return _Unpacker()


class _Unpacker:
    """One stream of gzip or zlib (RFC 9110, section 8.4.1), with nothing behind its end.

    RFC 1952 allows several gzip streams one after the other. No sender of requests makes them, and an empty one costs twenty bytes.
    """

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(47)  # 47: zlib finds out by itself which of the two it is

    @property
    def ended(self) -> bool:
        return self._inflate.eof

    def take(self, chunk: bytes, room: int) -> bytes:
        """What comes out, at most one byte more than there is room for. Raises UnreadableBodyError for bytes behind the end."""
        if self._inflate.eof:
            raise UnreadableBodyError(_BEHIND)
        found = self._inflate.decompress(chunk, room + 1)
        if self._inflate.unconsumed_tail:
            raise TooLargeError
        if self._inflate.unused_data:
            raise UnreadableBodyError(_BEHIND)
        return found
