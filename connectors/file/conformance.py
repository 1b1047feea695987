"""The conformance of the `file` source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from connectors.file.source import FileSource
from trunkline.core.contracts import SourceEvent
from trunkline.core.testing import NotApplicableError, SourceKit, source_suite


class FileSourceKit(SourceKit):
    """A folder with a CSV file of three rows each, the last of which may grow."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._inbox = folder / "inbox"
        self._count = 0

    @property
    def config(self) -> Any:
        return {
            "path": str(self._inbox),
            "pattern": "*.csv",
            "format": "csv",
            "batch": 2,
            "csv": {"columns": ["number", "text"], "header": False},
        }

    async def start(self) -> None:
        self._inbox.mkdir()

    async def happen(self, count: int) -> None:
        for _ in range(count):
            self._add(f'{self._count},"text {self._count}"\n')
            self._count += 1

    def number(self, event: SourceEvent) -> int:
        return int(event.value["number"])

    async def happen_badly(self) -> None:
        self._add('"7",too,many,cells\n')

    async def break_down(self) -> None:
        raise NotApplicableError("a local folder that is out of order is an error of its own, not of a moment")

    async def throttle(self) -> float:
        raise NotApplicableError("a folder asks nobody to wait")

    async def refuse(self) -> None:
        self._inbox.rmdir()

    async def hang(self) -> None:
        raise NotApplicableError("a local disk does not hang")

    def _add(self, line: str) -> None:
        with (self._inbox / f"part-{self._count // 3:03}.csv").open("a", encoding="utf-8") as file:
            file.write(line)


TestFileSource = source_suite(FileSource, factory=FileSourceKit)
