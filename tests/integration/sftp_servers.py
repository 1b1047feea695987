"""SFTP servers for tests: OpenSSH's own, with keys and configuration made for the test, and the stand-in."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from sinks.sftp.mock import SftpMock, SftpMockSettings
from sinks.sftp.settings import SftpConnection
from trunkline.core.secret import Secret

SSHD = Path("/usr/sbin/sshd")
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")
PRIVSEP = Path("/run/sshd")


@dataclass
class Server:
    """A server under test: how to reach it, what its folder holds."""

    kind: str
    port: int
    user: str
    private_key: str
    host_key: str
    folder: Path
    path: str
    pid: int = 0
    log: list[str] = field(default_factory=list)
    mock: SftpMock | None = None

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}

    def connection(self, **changes: Any) -> SftpConnection:
        known: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "private_key": Secret.of(self.private_key),
            "host_keys": [self.host_key],
            "allow_private": ["127.0.0.1"],
        }
        return SftpConnection.model_validate({**known, **changes})


@asynccontextmanager
async def openssh(root: Path) -> AsyncIterator[Server]:
    """OpenSSH's sshd with keys, configuration and served folder in `root`."""
    if not SSHD.exists():
        pytest.skip(f"{SSHD} is missing: install OpenSSH's server (Debian: openssh-server)")
    if os.geteuid() == 0:
        PRIVSEP.mkdir(mode=0o755, exist_ok=True)
    folder = root / "served"
    folder.mkdir()
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    user_key = asyncssh.generate_private_key("ssh-ed25519")
    host_key.write_private_key(root / "host_key")
    (root / "host_key").chmod(0o600)
    user_key.write_public_key(root / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {root / 'host_key'}",
        f"AuthorizedKeysFile {root / 'authorized_keys'}",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PermitRootLogin yes",
        "PasswordAuthentication yes",
        "KbdInteractiveAuthentication no",
        "MaxStartups 100",
        f"Subsystem sftp {SFTP_SERVER if SFTP_SERVER.exists() else 'internal-sftp'}",
    ]
    version = subprocess.run([SSHD, "-V"], capture_output=True, text=True, check=False).stderr
    release = re.search(r"OpenSSH_(\d+)\.(\d+)", version)
    if release and (int(release[1]), int(release[2])) >= (9, 8):
        lines.append("PerSourcePenalties no")  # or a refused password would shut out the tests after it
    (root / "sshd_config").write_text("\n".join(lines) + "\n")
    process = await asyncio.create_subprocess_exec(
        SSHD, "-D", "-e", "-f", root / "sshd_config", stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    log: list[str] = []
    listening = asyncio.Event()
    assert process.stderr is not None

    async def follow(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            log.append(line.decode("utf-8", "replace"))
            if "Server listening" in log[-1]:
                listening.set()
        listening.set()

    follower = asyncio.create_task(follow(process.stderr))
    try:
        await asyncio.wait_for(listening.wait(), 20)
        assert process.returncode is None, "".join(log)
        yield Server(
            "openssh",
            port,
            getpass.getuser(),
            user_key.export_private_key().decode(),
            host_key.export_public_key().decode(),
            folder,
            str(folder),
            process.pid,
            log,
        )
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await asyncio.wait_for(follower, 20)


@asynccontextmanager
async def mocked(root: Path, **options: Any) -> AsyncIterator[Server]:
    """The mock, reached as its `environment` says."""
    folder = root / "mocked"
    mock = SftpMock(SftpMockSettings(root=str(folder), **options))
    await mock.start()
    found = mock.environment
    try:
        yield Server(
            "mock",
            int(found["SFTP_PORT"]),
            found["SFTP_USER"],
            found["SFTP_PRIVATE_KEY"],
            found["SFTP_HOST_KEY"],
            folder,
            "/",
            mock=mock,
        )
    finally:
        await mock.stop()


class CutLine:
    """A line to the server that breaks when a number of bytes went one way. `passed` counts them."""

    def __init__(self, port: int, way: str = "up", limit: int | None = None) -> None:
        self._target = port
        self._way = way
        self._limit = limit
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.passed = {"up": 0, "down": 0}
        self.cut = False
        self.port = 0

    async def __aenter__(self) -> CutLine:
        self._server = await asyncio.start_server(self._came, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._break()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near, far = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far}
        for way, source, sink in (("up", reader, far), ("down", near, writer)):
            task = asyncio.create_task(self._carry(way, source, sink))
            self._tasks.add(task)

    async def _carry(self, way: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if way == self._way and self._limit is not None and self.passed[way] + len(data) > self._limit:
                    sink.write(data[: max(0, self._limit - self.passed[way])])
                    await sink.drain()
                    self.cut = True
                    break
                self.passed[way] += len(data)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._break()

    def lead_to(self, port: int) -> None:
        """New connections go to another server."""
        self._target = port

    def _break(self) -> None:
        for writer in self._writers:
            writer.close()
