"""What is wrong with TLS between us and another system, in the few kinds that a person can mend."""

from __future__ import annotations

import socket
import ssl
from enum import StrEnum
from typing import Final


class TlsFault(StrEnum):
    """Why a handshake failed; the words are the ends of error codes."""

    CA = "tls_ca"
    """Nobody whom we trust signed the certificate."""
    EXPIRED = "tls_expired"
    """The certificate is not valid at this time."""
    HOSTNAME = "tls_hostname"
    """The certificate is for another name."""
    CLIENT_CERTIFICATE = "tls_client_certificate"
    """The other side wants a certificate of ours, or another one."""
    PLAINTEXT = "tls_to_plaintext"
    """The other side speaks no TLS."""
    OTHER = "tls"


# Verification results of OpenSSL (x509_vfy.h).
_DATES: Final = {9, 10}
_NAMES: Final = {62, 64}


def tls_fault(error: ssl.SSLError) -> tuple[TlsFault, str]:
    """Which kind of fault it is, and what it says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        kinds = dict.fromkeys(_DATES, TlsFault.EXPIRED) | dict.fromkeys(_NAMES, TlsFault.HOSTNAME)
        return kinds.get(error.verify_code, TlsFault.CA), error.verify_message.rstrip(".")
    reason = error.reason or str(error)
    said = reason.lower().replace("_", " ")
    if "wrong version number" in said or "record layer failure" in said:
        return TlsFault.PLAINTEXT, said
    if "alert" in said and any(
        word in said for word in ("certificate", "unknown ca", "access denied", "decrypt error")
    ):
        return TlsFault.CLIENT_CERTIFICATE, said
    return TlsFault.OTHER, said


def untrusting_context() -> ssl.SSLContext:
    """For a handshake that only asks whether there is one. Nothing confidential may be sent through it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def speaks_tls(host: str, port: int, seconds: float) -> bool:
    """Whether a handshake is answered. Raises OSError where nobody is there."""
    with socket.create_connection((host, port), seconds) as plain:
        try:
            with untrusting_context().wrap_socket(plain, server_hostname=host):
                return True
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")  # only who speaks TLS sends an alert
        except OSError:
            return False


def tls_refusal(host: str, port: int, seconds: float) -> tuple[TlsFault, str] | None:
    """Why the other side ends connections after a handshake without a certificate of ours; None where it does not.

    Under TLS 1.3 it says so only then (RFC 8446, section 4.4.2), and what we send meanwhile may destroy what it says. Raises OSError
    where nobody is there.
    """
    with socket.create_connection((host, port), seconds) as plain:
        try:
            with untrusting_context().wrap_socket(plain, server_hostname=host) as connection:
                connection.recv(1)
        except ssl.SSLError as error:
            return tls_fault(error)
        except TimeoutError:
            return None
    return None
