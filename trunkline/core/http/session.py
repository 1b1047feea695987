"""The way out through aiohttp, for what is read and for large bodies: no proxies of the environment, no cookies, no hidden retries."""

from __future__ import annotations

import io
import ssl
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp import ClientConnectorError, ClientOSError, ClientRequest, ClientResponse, ServerDisconnectedError
from aiohttp.client import ClientTimeout

from trunkline.core.http.address import AddressPolicy
from trunkline.core.http.dial import IDLE_SECONDS, checked_socket
from trunkline.core.http.faults import Answer, Call, LostError, TooLongError, cause
from trunkline.core.http.options import HttpOptions
from trunkline.core.http.outgoing import AT_ONCE, Outgoing

_CACHED = 512
_current_call: ContextVar[Call] = ContextVar("trunkline_http_call")


class _Connector(aiohttp.TCPConnector):
    """Notes when a request has its connection: what fails before had no effect, what fails after may have had one."""

    async def connect(self, req: ClientRequest, traces: list[Any], timeout: ClientTimeout) -> Any:
        connection = await super().connect(req, traces, timeout)
        _current_call.get().connected = True
        return connection


async def _once(request: ClientRequest, handler: aiohttp.ClientHandlerType) -> ClientResponse:
    try:
        return await handler(request)
    except ClientConnectorError:
        raise
    except (ClientOSError, ServerDisconnectedError) as error:
        raise LostError(cause(error)) from None


class Session:
    """aiohttp's session on the running event loop. `context` is None for the system's certificate authorities."""

    def __init__(self, options: HttpOptions, policy: AddressPolicy, context: ssl.SSLContext | None) -> None:
        self._options = options
        self._timeouts: dict[float, ClientTimeout] = {}
        connector = _Connector(
            limit=options.max_connections,
            keepalive_timeout=IDLE_SECONDS,
            ssl=True if context is None else context,
            socket_factory=lambda info: checked_socket(info, _current_call.get(), policy),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            # Not what aiohttp would offer besides where a library for it happens to be installed.
            headers={"User-Agent": "trunkline", "Accept-Encoding": "gzip, deflate"},
            middlewares=(_once,),
        )

    async def exchange(self, outgoing: Outgoing, call: Call) -> Answer:
        """Sends a request and reads its answer, unpacked. Raises `aiohttp.ClientError`, TimeoutError, `LostError`, `TooLongError`."""
        _current_call.set(call)
        answer: ClientResponse | None = None
        try:
            answer = await self._session.request(
                outgoing.method,
                outgoing.target.url,
                data=_body(outgoing.content),
                headers=outgoing.headers,
                allow_redirects=False,
                timeout=self._timeouts.get(outgoing.seconds) or self._timeout(outgoing.seconds),
            )
            return Answer(answer.status, answer.reason or "", answer.headers, await self._read(answer))
        finally:
            # A connection whose answer was read to its end has gone back to the pool already; any other one ends here.
            if answer is not None:
                answer.close()

    async def close(self) -> None:
        """Ends all connections."""
        await self._session.close()

    async def _read(self, answer: ClientResponse) -> bytes:
        limit = self._options.max_response
        content = answer.content
        chunk = await content.readany()
        size = len(chunk)
        if size <= limit and content.at_eof():
            return chunk
        chunks = [chunk]
        while chunk and size <= limit:
            chunk = await content.readany()
            chunks.append(chunk)
            size += len(chunk)
        if size > limit:
            raise TooLongError(answer.status)
        return b"".join(chunks)

    def _timeout(self, seconds: float) -> ClientTimeout:
        made = ClientTimeout(total=seconds, sock_connect=min(seconds, self._options.connect_timeout))
        if len(self._timeouts) >= _CACHED:
            self._timeouts.clear()
        self._timeouts[seconds] = made
        return made


def _body(content: bytes | None) -> bytes | io.BytesIO | None:
    """A large body goes piece by piece: written at once it would hold up everything else on the event loop."""
    return io.BytesIO(content) if content is not None and len(content) > AT_ONCE else content
