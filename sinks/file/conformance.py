"""The conformance of the `file` sink."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sinks.file.sink import FileSink
from trunkline.core.testing import NotApplicableError, SinkKit, sink_suite


class FileSinkKit(SinkKit):
    """A folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._out = folder / "out"

    @property
    def config(self) -> Any:
        return {"folder": str(self._out), "format": {"type": "jsonl", "columns": ["number"]}}

    def value(self, number: int) -> Any:
        return {"number": number}

    def bad_value(self) -> Any:
        return {"nothing": 1}

    async def arrived(self) -> Sequence[int]:
        files = sorted(self._out.glob("*.jsonl")) if self._out.is_dir() else []
        return [json.loads(line)["number"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]

    async def break_down(self) -> None:
        raise NotApplicableError("a disk that is full for a moment needs a file system of its own")

    async def throttle(self) -> float:
        raise NotApplicableError("a folder asks nobody to wait")

    async def refuse(self) -> None:
        """A file stands where the folder should be: root may write anywhere, but not there."""
        if self._out.is_dir():
            shutil.rmtree(self._out)
        self._out.write_text("", encoding="utf-8")

    async def hang(self) -> None:
        raise NotApplicableError("a local disk does not hang")


TestFileSink = sink_suite(FileSink, factory=FileSinkKit)
