"""The conformance of the `sftp` sink."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sinks.sftp.mock import SftpMock, SftpMockSettings
from sinks.sftp.sink import SftpSink
from trunkline.core.testing import NotApplicableError, SinkKit, sink_suite


class SftpKit(SinkKit):
    """An SFTP server over a folder; OpenSSH's own is the other side elsewhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._root = folder / "served"
        self._mock = SftpMock(SftpMockSettings(root=str(self._root)))

    @property
    def environment(self) -> Mapping[str, str]:
        return self._mock.environment

    @property
    def secrets(self) -> Sequence[str]:
        found = self._mock.environment
        return (found["SFTP_PASSWORD"], found["SFTP_PRIVATE_KEY"].splitlines()[1])

    @property
    def config(self) -> Any:
        return {"folder": "/", "format": {"type": "jsonl", "columns": ["number"]}}

    @property
    def connection(self) -> dict[str, Any]:
        found = self._mock.environment
        return {
            "host": found["SFTP_HOST"],
            "port": int(found["SFTP_PORT"]),
            "user": found["SFTP_USER"],
            "password": "${env:SFTP_PASSWORD}",
            "host_keys": [found["SFTP_HOST_KEY"]],
            "allow_private": ["127.0.0.1"],
        }

    async def start(self) -> None:
        await self._mock.start()

    async def stop(self) -> None:
        await self._mock.stop()

    def value(self, number: int) -> Any:
        return {"number": number}

    def bad_value(self) -> Any:
        return {"nothing": 1}

    async def arrived(self) -> Sequence[int]:
        files = sorted(self._root.glob("*.jsonl"))
        return [json.loads(line)["number"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]

    async def break_down(self) -> None:
        self._mock.fail(1, "no_space")

    async def throttle(self) -> float:
        raise NotApplicableError("SFTP has no way to ask for a wait")

    async def refuse(self) -> None:
        self._mock.fail(100, "denied")

    async def hang(self) -> None:
        raise NotApplicableError("the stand-in always answers")


TestSftpSink = sink_suite(SftpSink, factory=SftpKit)
