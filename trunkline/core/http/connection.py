"""The aiohttp session underneath: checked sockets, no proxies from the environment, no cookies, no hidden retries."""

from __future__ import annotations

import socket
import ssl
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp import ClientConnectorError, ClientOSError, ClientRequest, ClientResponse, ServerDisconnectedError
from aiohttp.client import ClientTimeout

from trunkline.core.errors import ConfigurationError
from trunkline.core.http.address import AddressPolicy
from trunkline.core.http.options import HttpOptions

IDLE_SECONDS = 4.0
"""How long an idle connection is kept: less than the 5 s after which Node.js and uvicorn close theirs, because a request sent
into a closing connection has an unknown effect."""


class Call:
    """One request on its way: the host that was asked for, and how far it came."""

    __slots__ = ("connected", "host", "refused")

    def __init__(self, host: str) -> None:
        self.host = host
        self.connected = False
        self.refused: str | None = None


current_call: ContextVar[Call] = ContextVar("trunkline_http_call")


class LostError(Exception):
    """The connection ended after it was made. Not aiohttp's own class, because its session sends again after those."""


class _Connector(aiohttp.TCPConnector):
    """Notes when a request has its connection: what fails before had no effect, what fails after may have had one."""

    async def connect(self, req: ClientRequest, traces: list[Any], timeout: ClientTimeout) -> Any:
        connection = await super().connect(req, traces, timeout)
        current_call.get().connected = True
        return connection


async def _once(request: ClientRequest, handler: aiohttp.ClientHandlerType) -> ClientResponse:
    try:
        return await handler(request)
    except ClientConnectorError:
        raise
    except (ClientOSError, ServerDisconnectedError) as error:
        raise LostError(cause(error)) from None


def open_session(options: HttpOptions, policy: AddressPolicy) -> aiohttp.ClientSession:
    """A session of the running event loop. Raises `ConfigurationError` when the CA file can't be used."""

    def checked_socket(info: tuple[Any, ...]) -> socket.socket:
        # The last step before a connection, with the address it goes to: nothing can slip in between.
        family, kind, protocol, _, sockaddr = info
        call = current_call.get()
        reason = policy.refusal(call.host, str(sockaddr[0]))
        if reason is not None:
            call.refused = f"{call.host} is {sockaddr[0]}: refused, {reason}"
            raise PermissionError(call.refused)
        return socket.socket(family=family, type=kind, proto=protocol)

    connector = _Connector(
        limit=options.max_connections,
        keepalive_timeout=IDLE_SECONDS,
        ssl=_tls(options.ca_file),
        socket_factory=checked_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        headers={"User-Agent": "trunkline"},
        middlewares=(_once,),
    )


def cause(error: BaseException) -> str:
    """What went wrong in a few words, without the URL that aiohttp's own messages may quote."""
    inner = getattr(error, "os_error", None) or error
    if isinstance(inner, LostError):
        return str(inner)
    if isinstance(inner, ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(inner, ssl.SSLError):
        return f"TLS: {getattr(inner, 'verify_message', '') or inner.reason or type(inner).__name__}"
    if isinstance(inner, OSError):
        return inner.strerror or str(inner) or type(inner).__name__
    if isinstance(inner, aiohttp.ClientPayloadError):
        return "the answer's body is incomplete or badly encoded"
    if isinstance(inner, aiohttp.ClientResponseError):
        return "the answer is not HTTP, or its headers are too large"
    return type(inner).__name__


def _tls(ca_file: str | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the CA file {ca_file} can't be used: {cause(error)}", hint="http.ca_file names a PEM file"
        ) from None
    return context
