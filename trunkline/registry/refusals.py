"""Why a schema registry can't be asked, told from what the HTTP libraries raise."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from trunkline.core.errors import RetriableError
from trunkline.core.tls import TlsFault, speaks_tls, tls_fault, tls_refusal

LOOK_SECONDS: Final = 2.0
_OPTIONS: Final = "TRUNKLINE_REGISTRY_"
_HINTS: Final = {
    "registry.refused": "is the registry running, and is this its port? It is named by --registry or TRUNKLINE_REGISTRY_URL",
    "registry.unknown_host": "check the spelling in --registry or TRUNKLINE_REGISTRY_URL, and the name servers of this machine",
    "registry.timeout": "something drops or holds the packets, or the registry is held up: check firewalls and its own log",
    "registry.plaintext_to_tls": "write its URL with https://",
    "registry.tls_to_plaintext": "write its URL with http://, or use the port of its TLS listener",
    "registry.tls_ca": f"name the certificate authority that signed its certificate by {_OPTIONS}SSL_CA_LOCATION (a PEM file)",
    "registry.tls_expired": "renew its certificate; where its dates are right, correct the clock of this machine",
    "registry.tls_hostname": "name the registry as its certificate does, or add this name to the certificate (subjectAltName)",
    "registry.tls_client_certificate": (
        f"set {_OPTIONS}SSL_CERTIFICATE_LOCATION and {_OPTIONS}SSL_KEY_LOCATION to a certificate that it trusts"
    ),
    "registry.tls": "see the registry's log for the other side of it: versions and ciphers of both sides must overlap",
    "registry.unavailable": "see the registry's own log, and what stands between it and us",
}
"""What to do, by code."""


def unreachable(url: str, error: BaseException) -> RetriableError:
    """Our error for a registry that gave no answer: the code says why, and the hint what to do."""
    code, detail = _reason(url, error)
    return RetriableError(f"the schema registry at {url} can't be reached: {detail}", hint=_HINTS[code], code=code)


def _reason(url: str, error: BaseException) -> tuple[str, str]:
    """The code, and what was said."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return _of_tls(*tls_fault(cause))
        if isinstance(cause, socket.gaierror):
            return "registry.unknown_host", cause.strerror or str(cause)
        if isinstance(cause, ConnectionRefusedError):
            return "registry.refused", "nothing accepts connections there"
        if isinstance(cause, TimeoutError):
            return "registry.timeout", "no answer in time"
    with contextlib.suppress(OSError, ValueError):
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "http" and speaks_tls(host, parts.port or 80, LOOK_SECONDS):
            return "registry.plaintext_to_tls", "it closes plain connections, and takes a TLS handshake"
        if parts.scheme == "https" and (found := tls_refusal(host, parts.port or 443, LOOK_SECONDS)) is not None:
            return _of_tls(*found)
    return "registry.unavailable", str(error) or type(error).__name__


def _of_tls(fault: TlsFault, detail: str) -> tuple[str, str]:
    return f"registry.{fault}", detail


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
