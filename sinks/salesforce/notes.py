"""Which jobs a planned range began: noted on disk before their data is sent, so that a crash finds them again.

Bulk API 2.0 gives a job no name. A note says which jobs belong to the range that the engine names; the engine builds the range
again alike after a crash. One file a partition: a later range replaces the note of the one before, which is committed by then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import structlog.stdlib

from trunkline.core.errors import RetriableError
from trunkline.core.jsontext import read_json

Place = tuple[str, int]
"""A topic's id and a partition."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One job of a range: its id, and which of the range's waves it carries."""

    id: str
    wave: int


class JobNotes:
    """The notes of one pipeline on this worker. Blocks: belongs in a thread."""

    def __init__(self, folder: Path, log: structlog.stdlib.BoundLogger) -> None:
        self._folder = folder
        self._log = log

    def of(self, place: Place, name: str) -> list[Noted]:
        """The jobs that the range `name` began; none where nothing is known of it here."""
        path = self._path(place)
        try:
            found = read_json(path.read_bytes())
            return [Noted(**job) for job in found["jobs"]] if found["range"] == name else []
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Without its note a range makes its jobs again, which has no second effect.
            self._log.warning("salesforce note can't be read", path=str(path), error=str(error))
            return []

    def keep(self, place: Place, name: str, jobs: Sequence[Noted]) -> None:
        """Writes the note; it is on disk when this returns. Raises `RetriableError`."""
        path = self._path(place)
        partial = path.with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(json.dumps({"range": name, "jobs": [asdict(job) for job in jobs]}).encode())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            handle = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise RetriableError(
                f"the jobs of a range can't be noted: {error.strerror}", where=str(path), code="salesforce.note"
            ) from error

    def _path(self, place: Place) -> Path:
        return self._folder / f"{quote(place[0], safe='')}-{place[1]}.json"
