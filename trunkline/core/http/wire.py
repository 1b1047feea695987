"""One HTTP/1.1 connection (RFC 9112): a request goes out as one piece of bytes, its answer is parsed as it comes in.

One request at a time, never pipelined. A connection is used again only when nothing speaks against it: the answer ended where
it said it would, nothing followed it, the whole request had been written by then, and nobody said `close`. Whatever is not
framed beyond doubt is an error, because what one reader takes for a body another one takes for the next answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
from multidict import CIMultiDict

from trunkline.core.http.faults import Answer, BadAnswerError, LostError, TooLongError

MAX_HEAD = 2**16
"""Bytes that an answer may need besides its body: status lines, headers, interim answers, chunk sizes, trailers."""
FRAMING_PER_BYTE = 16
"""Bytes of framing that each byte of the body may need on top: chunks of one byte need six."""

_VERSIONS = frozenset({"1.0", "1.1"})


class Wire(asyncio.Protocol):
    """A connection. It calls `freed` when an answer ended and another request may follow, and `gone` when it has ended itself."""

    __slots__ = (
        "_answer",
        "_body",
        "_complete",
        "_excess",
        "_freed",
        "_gone",
        "_head_only",
        "_headers",
        "_headers_done",
        "_keep",
        "_limit",
        "_parser",
        "_reason",
        "_size",
        "_taken",
        "_transport",
        "_until_close",
        "deadline",
        "idle_since",
        "usable",
    )

    def __init__(self, limit: int, *, freed: Callable[[Wire], None], gone: Callable[[Wire], None]) -> None:
        self.usable = False
        """Whether a request can be sent: connected, and neither side has closed."""
        self.deadline = self.idle_since = 0.0
        """On the loop's clock: when the request under way has taken too long; when the last one ended."""
        self._limit = limit
        self._freed = freed
        self._gone = gone
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._answer: asyncio.Future[Answer] | None = None
        self._head_only = False
        self._taken = 0
        """Bytes received since the request was sent."""
        self._headers: CIMultiDict[str]
        self._body: list[bytes]
        self._size: int
        self._reason: bytes
        self._headers_done: bool
        self._until_close: bool
        """Whether the body ends where the connection does."""
        self._complete = self._keep = self._excess = False
        """The answer ended; it allows another request after it; something came after it."""
        self._begin()

    # --- called by the pool ---

    def send(self, request: bytes, answer: asyncio.Future[Answer], deadline: float, *, head_only: bool) -> None:
        """Sends a request, whose answer, or the error instead, goes to `answer`. `head_only`: it has no body (HEAD)."""
        self._begin()
        self._taken = 0
        self._complete = self._excess = False
        self._head_only = head_only
        self._answer = answer
        self.deadline = deadline
        self._transport.write(request)

    def give_up(self, answer: asyncio.Future[Answer]) -> None:
        """Nobody waits for this answer any more: what the connection still brings can't be told apart, so it ends."""
        if self._answer is answer:
            self._answer = None
            self.end()

    def fail(self, error: Exception) -> None:
        """The request under way ends with an error, and the connection with it."""
        answer, self._answer = self._answer, None
        self.end()
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def end(self) -> None:
        """Closes at once. There is nothing to be said goodbye to: no request is under way, or its answer is void."""
        if self.usable:
            self.usable = False
            self._transport.abort()

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._answer is None:
            self.end()  # nothing was asked: whatever this is, it must not be taken for the next answer
            return
        self._taken += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._complete:
                self.fail(BadAnswerError())
                return
            self._excess = True
        if self._size > self._limit:
            self.fail(TooLongError(self._parser.get_status_code()))
        elif not self._excess and self._taken - self._size > MAX_HEAD + FRAMING_PER_BYTE * self._size:
            self.fail(BadAnswerError())
        elif self._complete:
            self._done()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.usable = False
        if self._answer is not None:
            if exc is None and self._headers_done and self._until_close:
                self._complete = True
                self._keep = False
                self._done()
            else:
                self.fail(exc if isinstance(exc, OSError) else LostError("the server closed the connection"))
        self._gone(self)
        del self._parser  # it holds on to this object

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        """An answer begins; the final one comes after any number of interim ones (1xx)."""
        if self._complete:
            self._excess = True
        else:
            self._begin()

    def on_status(self, reason: bytes) -> None:
        """A piece of the reason phrase."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or after the body a trailer, which is passed over."""
        if not self._headers_done:
            self._headers.add(name.decode("ascii"), value.decode("utf-8", "replace"))

    def on_headers_complete(self) -> None:
        """The head is there: how the body is framed follows from it (RFC 9112, section 6.3)."""
        if self._complete:
            return
        self._headers_done = True
        headers, status = self._headers, self._parser.get_status_code()
        length, coded = headers.get("Content-Length"), "Transfer-Encoding" in headers
        if self._parser.get_http_version() not in _VERSIONS:
            raise BadAnswerError
        if status < 200:
            if status == 101 or coded or length is not None:
                raise BadAnswerError  # nobody asked for another protocol, and interim answers have no body
        elif self._head_only or (status in (204, 304) and (coded or length not in (None, "0"))):
            # No body follows, whatever the headers say; the parser believes them and can't go on from here.
            self._complete = True
            self._keep = False
        elif coded:
            if length is not None or [text.lower() for text in headers.getall("Transfer-Encoding")] != ["chunked"]:
                raise BadAnswerError
        else:
            self._until_close = length is None and status not in (204, 304)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if not self._complete:
            self._body.append(data)
            self._size += len(data)

    def on_message_complete(self) -> None:
        """The answer ended, or an interim one."""
        if not self._complete and self._parser.get_status_code() >= 200:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # --- inside ---

    def _begin(self) -> None:
        self._headers = CIMultiDict()
        self._body = []
        self._size = 0
        self._reason = b""
        self._headers_done = self._until_close = False

    def _done(self) -> None:
        future, self._answer = self._answer, None
        assert future is not None
        body = self._body
        answer = Answer(
            self._parser.get_status_code(),
            self._reason.decode("utf-8", "replace"),
            self._headers,
            body[0] if len(body) == 1 else b"".join(body),
        )
        # An answer to a request that has not gone out whole is one, but what follows of the request has no meaning any more.
        if self._keep and not self._excess and self.usable and not self._transport.get_write_buffer_size():
            self._freed(self)
        else:
            self.end()
        if not future.done():
            future.set_result(answer)
