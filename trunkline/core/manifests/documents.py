"""A document: what one manifest says, and where in its file each part of it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.core.manifests.problems import Path_, Problem, spelled

YAML_PROBLEM = "manifest.yaml"


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its data, and for the path of each value the line (from 1) where it stands.

    `written` has what stands in the file where that is not what it means: `no` for false, `1.10` for 1.1, nothing for null.
    `problems` are those of its YAML. `legible` is False where a part of it could not be read, so that more can't be said of it.
    `source` are the lines of the file.
    """

    data: Any
    lines: dict[Path_, int]
    file: str
    written: Mapping[Path_, str] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    legible: bool = True
    source: Sequence[str] = ()

    def line(self, path: Path_) -> int:
        """The line of the value at `path`, or of the nearest value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def value(self, path: Path_) -> Any:
        """What stands at `path`; None where nothing does."""
        found = self.data
        for part in path:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def text_of_line(self, path: Path_) -> str:
        """The line of the file where the value at `path` stands; empty where the document came from elsewhere."""
        number = self.line(path)
        return self.source[number - 1] if number <= len(self.source) else ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a manifest stands, so that a problem can name its file and line."""

    document: Document

    def problem(self, path: Path_, message: str, hint: str | None = None, code: str = "manifest.invalid") -> Problem:
        """A problem at `path` within the manifest."""
        return Problem(self.document.file, self.document.line(path), spelled(path), message, hint, code)

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the manifest start from."""
        return Path(self.document.file).parent
