"""A new connection: the name is resolved, each address is judged, and what was judged is what is connected to."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohappyeyeballs import start_connection

from trunkline.core.errors import ConfigurationError
from trunkline.core.http.address import AddressPolicy
from trunkline.core.http.faults import Call, cause

IDLE_SECONDS = 4.0
"""How long an idle connection is kept: less than the 5 s after which Node.js and uvicorn close theirs, because a request sent
into a closing connection has an unknown effect."""
HEAD_START = 0.25
"""Seconds that an address is tried alone before the next one is tried beside it (RFC 8305, section 5)."""


class Origin(NamedTuple):
    """Where a connection goes: what may share one. `tls` is whether the scheme is https."""

    tls: bool
    host: str
    port: int


async def connect(
    origin: Origin,
    protocol: Callable[[], asyncio.Protocol],
    *,
    call: Call,
    policy: AddressPolicy,
    context: ssl.SSLContext | None,
) -> None:
    """Makes `protocol` a connection, TLS included. Raises OSError; why an address was refused is noted in `call`.

    `context` is None for the system's authorities.
    """
    loop = asyncio.get_running_loop()
    host = origin.host.rstrip(".")

    def judged(info: tuple[Any, ...]) -> socket.socket:
        return checked_socket(info, call, policy)

    sock: socket.socket | None = await start_connection(
        await _addresses(loop, host, origin.port),
        happy_eyeballs_delay=HEAD_START,
        interleave=1,
        loop=loop,
        socket_factory=judged,
    )
    try:
        tls = (context or default_tls()) if origin.tls else None
        await loop.create_connection(protocol, sock=sock, ssl=tls, server_hostname=host if origin.tls else None)
        sock = None
    finally:
        if sock is not None:
            sock.close()


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
    """What `getaddrinfo` gives for a name; of a numeric address the same without asking anybody."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    if version == 6:
        return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))]
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]


def checked_socket(info: tuple[Any, ...], call: Call, policy: AddressPolicy) -> socket.socket:
    """A socket for an address that `getaddrinfo` gave, where the policy allows it. Raises PermissionError.

    This is the last step before a connection, with the very address it goes to: nothing can slip in between.
    """
    family, kind, protocol, _, sockaddr = info
    reason = policy.refusal(call.host, str(sockaddr[0]))
    if reason is not None:
        call.refused = f"{call.host} is {sockaddr[0]}: refused, {reason}"
        raise PermissionError(call.refused)
    return socket.socket(family=family, type=kind, proto=protocol)


@functools.cache
def default_tls() -> ssl.SSLContext:
    """The context that trusts the system's certificate authorities: read once, at the first use."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_of(ca_file: str | None) -> ssl.SSLContext | None:
    """The context that trusts the file's authorities too; None where none is named. Raises `ConfigurationError`."""
    if ca_file is None:
        return None
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the CA file {ca_file} can't be used: {cause(error)}", hint="http.ca_file names a PEM file"
        ) from None
    return context
