"""An SFTP server on loopback for demos and tests: a folder, one user, a throw-away host key."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import asyncssh

from trunkline.core.errors import ConfigurationError
from trunkline.core.mock import Mock
from trunkline.core.settings import Settings, setting

KINDS = ("unavailable", "throttled", "denied", "no_space", "disconnect")
_HEAD = 200


class SftpMockSettings(Settings):
    """What the server shows."""

    root: str | None = setting(
        None, description="The folder that is served. Without it a temporary one, removed at the end."
    )
    user: str = setting("trunkline", description="The name of its only user.", min_length=1)
    posix_rename: bool = setting(
        True, description="Whether it can rename onto an existing file, as OpenSSH can and some vendors can't."
    )


class SftpMock(Mock):
    """asyncssh's SFTP server, which speaks the protocol itself. Its answers to `fail` are those of version 3 servers.

    `unavailable` and `throttled` fail the opening of a file, `denied` ends all sessions and refuses the next credentials,
    `no_space` fails a write, and `disconnect` cuts the line in the middle of one.
    """

    settings_type: ClassVar[type[SftpMockSettings]] = SftpMockSettings
    summary: ClassVar[str] = "An SFTP server with one user over a local folder."

    settings: SftpMockSettings

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._password = secrets.token_urlsafe(18)
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._user_key = asyncssh.generate_private_key("ssh-ed25519")
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._server: asyncssh.SSHAcceptor | None = None
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._failures: list[str] = []
        self._host = ""
        self._port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens. Raises `ConfigurationError` where the folder can't be made."""
        self._host = host
        if self.settings.root is None:
            self._folder = tempfile.TemporaryDirectory(prefix="trunkline-sftp-")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {self.root} can't be made: {error.strerror}", hint="change `root`", code="sftp.mock_root"
            ) from error
        self._server = await asyncssh.create_server(
            lambda: _Door(self),
            host,
            port,
            server_host_keys=[self._host_key],
            sftp_factory=lambda channel: _Shelf(channel, self),
            allow_scp=False,
            config=None,
        )
        self._port = self._server.get_port()

    async def stop(self) -> None:
        """Ends the server, its connections and a temporary folder."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._connections):
                connection.abort()
            await asyncio.gather(*(connection.wait_closed() for connection in list(self._connections)))
            await self._server.wait_closed()
            self._server = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def root(self) -> Path:
        """The folder that is served."""
        return Path(self.settings.root or (self._folder.name if self._folder else tempfile.gettempdir()))

    @property
    def url(self) -> str:
        """`sftp://user@host:port`."""
        return f"sftp://{self.settings.user}@{self._host}:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The connection's parts. The keys live and die with this server."""
        return {
            "SFTP_HOST": self._host,
            "SFTP_PORT": str(self._port),
            "SFTP_USER": self.settings.user,
            "SFTP_PASSWORD": self._password,
            "SFTP_PRIVATE_KEY": self._user_key.export_private_key().decode(),
            "SFTP_HOST_KEY": self._host_key.export_public_key().decode().strip(),
        }

    def contents(self) -> list[dict[str, Any]]:
        """The files with path, size, sha256 and the beginning of those that are text."""
        found = []
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                raw = path.read_bytes()
                head = raw[:_HEAD].decode("utf-8", "replace") if b"\0" not in raw[:_HEAD] else ""
                found.append(
                    {
                        "path": path.relative_to(self.root).as_posix(),
                        "size": len(raw),
                        "sha256": hashlib.sha256(raw).hexdigest(),
                        "head": head,
                    }
                )
        return found

    @property
    def sessions(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def fail(self, times: int, kind: str = "unavailable") -> None:
        """The next `times` deliveries fail. Raises `ConfigurationError` (`mock.kind`) for a kind that SFTP does not know."""
        if kind not in KINDS:
            raise ConfigurationError(
                f"{kind!r} is no failure of SFTP", hint=f"known: {', '.join(KINDS)}", code="mock.kind"
            )
        self._failures += [kind] * times
        if kind == "denied":
            for connection in list(self._connections):
                connection.abort()

    def takes_failure(self, *kinds: str) -> str | None:
        """The next failure when it is one of `kinds`: it has happened then."""
        return self._failures.pop(0) if self._failures and self._failures[0] in kinds else None

    def knows(self, user: str, password: str) -> bool:
        """Whether these are the credentials, unless a refusal was asked for."""
        good = hmac.compare_digest(f"{user}\0{password}".encode(), f"{self.settings.user}\0{self._password}".encode())
        return good and self.takes_failure("denied") is None

    def knows_key(self, user: str, key: asyncssh.SSHKey) -> bool:
        """Whether this is the user's key, unless a refusal was asked for."""
        return (
            user == self.settings.user
            and key.public_data == self._user_key.public_data
            and self.takes_failure("denied") is None
        )

    def came(self, connection: asyncssh.SSHServerConnection) -> None:
        """A client connected."""
        self._connections.add(connection)

    def went(self, connection: asyncssh.SSHServerConnection) -> None:
        """A client's connection ended."""
        self._connections.discard(connection)


class _Door(asyncssh.SSHServer):
    def __init__(self, mock: SftpMock) -> None:
        self._mock = mock
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._mock.came(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._mock.went(self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return self._mock.knows(username, password)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._mock.knows_key(username, key)


class _Shelf(asyncssh.SFTPServer):
    """The served folder. Dots don't lead out of it; a link that someone put there on this machine does."""

    def __init__(self, channel: Any, mock: SftpMock) -> None:
        self._mock = mock
        self._channel = channel
        super().__init__(channel, chroot=str(mock.root).encode())

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        if pflags & asyncssh.FXF_WRITE and self._mock.takes_failure("unavailable", "throttled"):
            raise asyncssh.SFTPFailure("the server can't serve you now")
        return super().open(path, pflags, attrs)

    def write(self, file_obj: object, offset: int, data: bytes) -> Any:
        failure = self._mock.takes_failure("no_space", "disconnect")
        if failure == "no_space":
            raise asyncssh.SFTPFailure("no space left on device")
        if failure == "disconnect":
            # Half of it arrives, as when a line goes down.
            super().write(file_obj, offset, data[: len(data) // 2])
            self._channel.get_connection().abort()
            raise asyncssh.SFTPConnectionLost("cut on request")
        return super().write(file_obj, offset, data)

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> Any:
        if not self._mock.settings.posix_rename:
            raise asyncssh.SFTPOpUnsupported("no renaming onto a file here")
        return super().posix_rename(oldpath, newpath)
