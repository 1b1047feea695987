"""A look at a listener with bare sockets, for what librdkafka does not tell.

It says "certificate verify failed" for a certificate that has expired, is for another name or has an unknown issuer; and nothing but
"disconnected" where a listener waits for TLS or for a sign-in. So the listener is asked what it is, by a TLS handshake and by Kafka's
`SaslHandshake` (KIP-43: any client may send it first, and the answer names the mechanisms that the listener has).
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any, Final

from trunkline.bus.kafka.refusals import Refusal, refusal
from trunkline.core.tls import speaks_tls, tls_fault, tls_refusal, untrusting_context

SECONDS: Final = 2.0
_SASL_HANDSHAKE: Final = 17
_UNSUPPORTED_MECHANISM: Final = 33
_MOST_ANSWERED: Final = 64 * 1024
_UNRESOLVED: Final = {"kafka.tls_ca", "kafka.disconnected"}
"""What may have several reasons, as far as librdkafka's words go."""


def examined(found: Refusal, options: Mapping[str, Any]) -> Refusal:
    """The same refusal, or the one that a look at its listener shows it to be. `options` are those of the client."""
    if found.kind.code == "kafka.tls_client_certificate" and not any("certificate" in name for name in options):
        return refusal(found.kind.code, found.address, "it asks for one, and none is set")
    if found.kind.code not in _UNRESOLVED:
        return found
    host, _, port = found.address.rpartition(":")
    host = host.strip("[]")
    protocol = options.get("security.protocol", "").upper()
    over_tls = protocol.endswith("SSL")
    try:
        place = (host, int(port))
        if found.kind.code == "kafka.tls_ca":
            return _certificate(place, found, options)
        if not over_tls and speaks_tls(*place, SECONDS):
            return refusal(
                "kafka.plaintext_to_tls", found.address, "it closes plain connections, and takes a TLS handshake"
            )
        if "SASL" not in protocol:
            mechanisms = _mechanisms(place, tls=over_tls)
            if mechanisms:
                detail = f"it closes connections that do not; its mechanisms are {', '.join(mechanisms)}"
                return refusal("kafka.sasl_required", found.address, detail)
        if over_tls and (fault := tls_refusal(*place, SECONDS)) is not None:
            return examined(refusal(f"kafka.{fault[0]}", found.address, fault[1]), options)
    except (OSError, ValueError, struct.error):
        pass  # it can't be looked at either: what the client said stands
    return found


def _certificate(place: tuple[str, int], found: Refusal, options: Mapping[str, Any]) -> Refusal:
    """What is wrong with a certificate that the client did not accept."""
    context = ssl.create_default_context(cafile=options.get("ssl.ca.location"), cadata=options.get("ssl.ca.pem"))
    context.check_hostname = options.get("ssl.endpoint.identification.algorithm") != "none"
    try:
        with (
            socket.create_connection(place, SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=place[0]),
        ):
            return found
    except ssl.SSLCertVerificationError as error:
        fault, detail = tls_fault(error)
        return refusal(f"kafka.{fault}", found.address, detail)


def _mechanisms(place: tuple[str, int], *, tls: bool) -> list[str]:
    """The SASL mechanisms of a listener; none where it has no sign-in. Raises OSError, struct.error."""
    with socket.create_connection(place, SECONDS) as plain:
        if not tls:
            return _ask_mechanisms(plain)
        with untrusting_context().wrap_socket(plain, server_hostname=place[0]) as wrapped:
            return _ask_mechanisms(wrapped)


def _ask_mechanisms(connection: socket.socket) -> list[str]:
    # Request header v1 and SaslHandshakeRequest v1 (https://kafka.apache.org/protocol): a mechanism that no listener has.
    body = struct.pack(">hhih", _SASL_HANDSHAKE, 1, 1, -1) + _text("?")
    connection.sendall(struct.pack(">i", len(body)) + body)
    answer = _read(connection, struct.unpack(">i", _read(connection, 4))[0])
    _, code, count = struct.unpack_from(">ihi", answer)
    if code != _UNSUPPORTED_MECHANISM:
        return []
    names, at = [], struct.calcsize(">ihi")
    for _ in range(count):
        (length,) = struct.unpack_from(">h", answer, at)
        at += 2
        names.append(answer[at : at + length].decode("utf-8", "replace"))
        at += length
    return names


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded


def _read(connection: socket.socket, length: int) -> bytes:
    if not 0 <= length <= _MOST_ANSWERED:
        raise OSError("no Kafka listener answers like this")
    received = b""
    while len(received) < length:
        part = connection.recv(length - len(received))
        if not part:
            raise OSError("it closed the connection")
        received += part
    return received
