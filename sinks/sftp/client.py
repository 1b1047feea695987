"""One SSH connection with one SFTP session, opened when needed and again after a loss."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import asyncssh
from asyncssh.public_key import get_default_public_key_algs

from sinks.sftp.settings import SftpConnection
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.http import AddressPolicy, AddressRefusedError

LOST = (
    asyncssh.DisconnectError,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncssh.SFTPBadMessage,
    OSError,
)
"""What asyncssh raises when the connection is gone or can't be trusted to go on (also TimeoutError, an OSError)."""


class SftpClient:
    """Keeps one session for all uploads of a sink. SFTP requests of several uploads share it (they carry ids)."""

    def __init__(self, settings: SftpConnection) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._session: asyncssh.SFTPClient | None = None

    @property
    def server(self) -> str:
        """`host:port`, for messages."""
        return f"{self._settings.host}:{self._settings.port}"

    async def session(self) -> asyncssh.SFTPClient:
        """The open session, or a new one.

        Raises `FatalError` for a wrong host key or refused credentials, `ConfigurationError` for a key that can't be read or an
        address that is not allowed, and `RetriableError` for everything that may pass.
        """
        async with self._lock:
            if self._session is None:
                await self._open()
            assert self._session is not None
            return self._session

    async def drop(self, session: asyncssh.SFTPClient | None) -> None:
        """Gives up a session that failed, unless another upload has already replaced it."""
        async with self._lock:
            if session is self._session:
                await self._end()

    async def close(self) -> None:
        """Ends the session and the connection."""
        async with self._lock:
            await self._end()

    async def _end(self) -> None:
        connection, self._connection, self._session = self._connection, None, None
        if connection is not None:
            # No farewell: on a dead line it would wait for its answer.
            connection.abort()
            await connection.wait_closed()

    async def _open(self) -> None:
        pins = _Pins(self._settings.host_keys)
        options = self._options(pins)
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                self._connection = await self._dial(options)
                self._session = await self._connection.start_sftp_client()
        except asyncssh.HostKeyNotVerifiable as error:
            raise FatalError(
                f"{self.server} shows the host key {pins.offered}, pinned is {pins.described}",
                hint="ask the server's owner whether the key was changed; only then change `host_keys`",
                code="sftp.host_key",
            ) from error
        except asyncssh.PermissionDenied as error:
            raise FatalError(
                f"{self.server} refuses the user {self._settings.user!r}",
                hint="check user, password and private key of the connection",
                code="sftp.denied",
            ) from error
        except asyncssh.KeyExchangeFailed as error:
            raise FatalError(
                f"{self.server} and we have no algorithm in common: {error.reason}",
                hint="pin a key of another kind, or bring the server up to date",
                code="sftp.no_algorithm",
            ) from error
        except asyncssh.ChannelOpenError as error:
            raise FatalError(
                f"{self.server} offers no SFTP: {error.reason}", hint="ask its owner", code="sftp.no_sftp"
            ) from error
        except TimeoutError as error:
            raise RetriableError(
                f"{self.server} did not answer within {self._settings.connect_timeout:g} s", code="sftp.timeout"
            ) from error
        except (asyncssh.Error, OSError) as error:
            raise RetriableError(f"no connection to {self.server}: {describe(error)}", code="sftp.connect") from error
        finally:
            if self._session is None:
                await self._end()

    async def _dial(self, options: dict[str, Any]) -> asyncssh.SSHClientConnection:
        """Connects to the first address that answers. The name is resolved once, so what was checked is what is dialled."""
        settings = self._settings
        addresses = await self._addresses()
        for address in addresses[:-1]:
            try:
                return await asyncssh.connect(address, settings.port, config=None, **options)
            except OSError:
                continue
        return await asyncssh.connect(addresses[-1], settings.port, config=None, **options)

    async def _addresses(self) -> list[str]:
        """The numeric addresses of the host that may be reached. Raises `AddressRefusedError` when there are none."""
        settings = self._settings
        policy = AddressPolicy(settings.allow_private)
        found = await asyncio.get_running_loop().getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        judged = {str(entry[4][0]): policy.refusal(settings.host, str(entry[4][0])) for entry in found}
        allowed = [address for address, reason in judged.items() if reason is None]
        if not allowed:
            reasons = ", ".join(f"{address} is {reason}" for address, reason in judged.items())
            raise AddressRefusedError(
                f"{self.server} may not be reached: {reasons}",
                hint="name it in `allow_private` of the connection if it is meant",
            )
        return allowed

    def _options(self, pins: _Pins) -> dict[str, Any]:
        """Everything said outright: nothing comes from the user's `~/.ssh`, an agent, or keys of the machine."""
        settings = self._settings
        return {
            "username": settings.user,
            "password": settings.password.reveal() if settings.password is not None else None,
            "client_keys": [self._private_key()] if settings.private_key is not None else None,
            "agent_path": None,
            "known_hosts": (pins.keys, [], []),
            "x509_trusted_certs": None,
            "server_host_key_algs": pins.algorithms,
            "client_factory": lambda: _Client(pins),
            "preferred_auth": "publickey,password,keyboard-interactive",
            "keepalive_interval": settings.keepalive,
            "keepalive_count_max": 3,
        }

    def _private_key(self) -> asyncssh.SSHKey:
        settings = self._settings
        assert settings.private_key is not None
        passphrase = settings.passphrase.reveal() if settings.passphrase is not None else None
        try:
            return asyncssh.import_private_key(settings.private_key.reveal() + "\n", passphrase)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            # asyncssh opens OpenSSH's own encrypted form only where the package bcrypt is installed.
            hint = (
                "install the Python package bcrypt, or convert the key: ssh-keygen -p -m PKCS8"
                if "bcrypt" in str(error)
                else "give the content of an OpenSSH or PEM private key, and its passphrase where it has one"
            )
            # Not chained: a traceback could show pieces of the key.
            raise ConfigurationError("the private key can't be read", hint=hint, code="sftp.private_key") from None


class _Pins:
    """The host keys that are accepted, and the last one that was not."""

    def __init__(self, pins: list[str]) -> None:
        self.fingerprints = {pin for pin in pins if pin.startswith("SHA256:")}
        self.keys = [_public_key(pin) for pin in pins if not pin.startswith("SHA256:")]
        self.offered = "none"
        # The kinds of the pinned keys first, since a server has several keys; the others too, so that a server which has none of
        # those shows what it has. Certificates are never asked for: the pin is on the key.
        pinned = [name for key in self.keys for name in key.sig_algorithms]
        self.algorithms = [name.decode() for name in dict.fromkeys([*pinned, *get_default_public_key_algs()])]

    @property
    def described(self) -> str:
        """All pins as fingerprints, for messages."""
        return ", ".join(sorted(self.fingerprints | {key.get_fingerprint() for key in self.keys}))

    def accept(self, key: asyncssh.SSHKey) -> bool:
        """Whether a key that is not among `keys` has a pinned fingerprint."""
        self.offered = f"{key.get_fingerprint()} ({key.get_algorithm()})"
        return key.get_fingerprint() in self.fingerprints


class _Client(asyncssh.SSHClient):
    def __init__(self, pins: _Pins) -> None:
        self._pins = pins

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self._pins.accept(key)


def _public_key(line: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_public_key(line)
    except asyncssh.KeyImportError as error:
        raise ConfigurationError(
            f"{line[:40]!r} in `host_keys` is no public key", hint="copy the whole line", code="sftp.host_key"
        ) from error


def describe(error: BaseException) -> str:
    """What went wrong, in the server's or the system's words."""
    text = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error)
    return f"{text} ({type(error).__name__})" if text else type(error).__name__
