"""TLS of a listener: certificates that are read again when their files change, and clients that must show one where asked for.

A certificate is renewed under a running server, by whatever renews it: usually certificate and key are two files, written one after
the other. So new files count from the moment at which they fit together, and until then the old ones do. The same holds for a new
certificate that is not valid at this time.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from trunkline.core.errors import ConfigurationError
from trunkline.core.log import get_logger

log = get_logger(__name__)
LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate with its chain, its key, and the authorities of clients where these must show a certificate."""

    certificate: Path
    key: Path
    clients: Path | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str], cert: str, key: str, client_ca: str) -> TlsFiles | None:
        """From variables of these names; None where none of them is set.

        Raises `ConfigurationError` (`option.tls`) where certificate or key is missing.
        """
        found = [Path(value) if (value := environment.get(name)) else None for name in (cert, key, client_ca)]
        certificate, private, clients = found
        if certificate is not None and private is not None:
            return cls(certificate, private, clients)
        if any(found):
            raise ConfigurationError(
                "TLS takes a certificate and its key, and one of them is missing",
                where=f"{cert}, {key}",
                hint="name both as PEM files, or neither",
                code="option.tls",
            )
        return None

    def load(self) -> ssl.SSLContext:
        """What they make. Raises `ConfigurationError` (`tls.files`) that names the file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        reading = self.certificate
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            if self.clients is not None:
                reading = self.clients
                context.load_verify_locations(cafile=self.clients)
                context.verify_mode = ssl.CERT_REQUIRED
                # Who resumes a session shows no certificate: it would be let in by an authority that counts no more. Under TLS 1.2
                # OpenSSL resumes sessions that it remembers itself, which Python can't turn off.
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.num_tickets = 0
        except (OSError, ValueError) as error:
            missing = next(
                (one for one in (self.certificate, self.key, self.clients) if one and not one.is_file()), None
            )
            reason = f"there is no file {missing}" if missing is not None else _reason(error)
            raise ConfigurationError(
                f"TLS can't be served: {reason}",
                where=str(reading),
                hint="certificate and key must be PEM files that belong together, the key without a password",
                code="tls.files",
            ) from error
        return context

    def validity(self) -> tuple[dt.datetime, dt.datetime] | None:
        """From when until when the server's certificate is valid; None where that can't be read."""
        try:
            own = x509.load_pem_x509_certificates(self.certificate.read_bytes())[0]
            return own.not_valid_before_utc, own.not_valid_after_utc
        except (OSError, ValueError):
            return None

    def marks(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when a file does: also when a link is turned to another one, as Kubernetes does with a secret."""
        return tuple(_mark(one) for one in (self.certificate, self.key, self.clients) if one is not None)


class ServerTls:
    """The TLS of a listener, as of now. On the event loop."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._marks = files.marks()
        self._current: ssl.SSLContext | None = None
        self._begins: dt.datetime | None = None
        """When a new certificate becomes valid that was there too early."""
        self._looking: asyncio.Task[None] | None = None

    async def begin(self) -> ssl.SSLContext:
        """The context to listen with. Each handshake takes what is current then. Raises `ConfigurationError` (`tls.files`)."""
        self._marks = self._files.marks()
        self._current = listening = await asyncio.to_thread(self._files.load)
        try:
            await self._require_valid()
        except ConfigurationError as error:  # nothing better is there, and who does not look at dates can go on
            log.error("clients will refuse the certificate", reason=str(error), hint=error.hint)
        # OpenSSL asks at each handshake, whether or not the client names a server (SSL_CTX_set_tlsext_servername_callback).
        listening.sni_callback = self._chosen
        self._looking = asyncio.create_task(self._look())
        return listening

    async def end(self) -> None:
        """Looks no more."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
            self._looking = None

    def _chosen(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if self._current is not None:
            connection.context = self._current

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Takes the files if they have changed and can be used. What can't be used is said, once for each change."""
        marks = await asyncio.to_thread(self._files.marks)
        due = self._begins is not None and dt.datetime.now(dt.UTC) >= self._begins
        if marks == self._marks and not due:
            return
        self._marks, self._begins = marks, None
        try:
            found = await asyncio.to_thread(self._files.load)
            await self._require_valid()
            self._current = found
        except ConfigurationError as error:
            log.error("the new TLS files can't be used; the old ones still are", reason=str(error), hint=error.hint)
        else:
            log.info("the TLS files have changed and count from now on", certificate=str(self._files.certificate))

    async def _require_valid(self) -> None:
        """Raises `ConfigurationError` (`tls.files`) for a certificate that is not valid at this time."""
        validity = await asyncio.to_thread(self._files.validity)
        if validity is None:
            return
        (begins, ends), now = validity, dt.datetime.now(dt.UTC)
        if begins <= now <= ends:
            return
        self._begins = begins if now < begins else None
        raise ConfigurationError(
            f"the certificate is valid from {begins:%Y-%m-%dT%H:%M:%SZ} until {ends:%Y-%m-%dT%H:%M:%SZ} only",
            where=str(self._files.certificate),
            hint="renew it; it counts as soon as a valid one is there" if now > ends else "it counts from then on",
            code="tls.files",
        )


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _no_password() -> str:
    raise ValueError("the key is encrypted with a password")  # OpenSSL would ask the terminal for it


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        words = (error.reason or str(error)).lower().replace("_", " ")
        return f"the files are no certificate and its key ({words})"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
