"""The flights of the demo, and what must become of them: worked out here with the csv module, apart from the bus."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trunkline.core.errors import UnavailableError

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "flights"
DELAYED_MINUTES = 15
CRITICAL_MINUTES = 180
NEW_AIRLINE = "HA"
"""The airline that the CRM does not know at first."""
_TEXT = ("carrier", "tailnum", "origin", "dest", "time_hour")
_NEVER_NULL = ("year", "month", "day", "carrier", "flight", "origin", "dest", "distance", "hour", "minute", "time_hour")


@dataclass(frozen=True, slots=True)
class Flights:
    """What comes in. `rows` and `bad_lines` are of the file (lines count from 1), `posts` are the bodies that the airline sends.

    `delayed` has the minutes of each delayed flight by its key; those of `critical` are the very late ones among them.
    """

    file: Path
    rows: int
    bad_lines: tuple[int, ...]
    posts: tuple[bytes, ...]
    delayed: Mapping[str, int]
    critical: frozenset[str]
    traced: int
    """The post whose way is shown at the end: a critical flight of an airline that the CRM knows."""

    @property
    def total(self) -> int:
        """Flights that become events."""
        return self.rows + len(self.posts)

    @property
    def carriers(self) -> list[str]:
        """The airlines of delayed flights."""
        return sorted({key[:2] for key in self.delayed})

    @property
    def of_new_airline(self) -> frozenset[str]:
        """The delayed flights that the CRM refuses at first."""
        return frozenset(key for key in self.delayed if key.startswith(NEW_AIRLINE))


def read_flights(folder: Path = EXAMPLE) -> Flights:
    """Reads the example's data. Raises `UnavailableError` where it is not there."""
    file = folder / "data" / "departures.csv"
    try:
        posts = tuple((folder / "data" / "late-posts.jsonl").read_bytes().splitlines())
        lines = list(_rows(file))
    except OSError as error:
        raise UnavailableError(
            f"the flights of the demo can't be read: {error.strerror}",
            where=str(folder),
            hint="run the demo in a clone of the project: its examples are not in the package",
            code="demo.data",
        ) from error
    good = [row for _, row in lines if row is not None]
    posted: list[dict[str, Any]] = [json.loads(post) for post in posts]
    delayed = {key_of(row): row["dep_delay"] for row in (*good, *posted) if (row["dep_delay"] or 0) >= DELAYED_MINUTES}
    critical = frozenset(key for key, minutes in delayed.items() if minutes >= CRITICAL_MINUTES)
    traced = next(at for at, row in enumerate(posted) if key_of(row) in critical and row["carrier"] != NEW_AIRLINE)
    bad = tuple(line for line, row in lines if row is None)
    return Flights(file, len(good), bad, posts, delayed, critical, traced)


def key_of(row: Mapping[str, Any]) -> str:
    """What the example's stream calls a flight."""
    return f"{row['carrier']}{row['flight']}-{row['year']}-{row['month']}-{row['day']}-{row['origin']}"


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Each row with its line; None in place of one that is no flight."""
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text)
        header = next(reader)
        for cells in reader:
            yield (
                reader.line_num,
                _flight(dict(zip(header, cells, strict=False))) if len(cells) == len(header) else None,
            )


def _flight(cells: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = {}
        for name, cell in cells.items():
            cell.encode()
            row[name] = None if cell == "NA" else cell if name in _TEXT else int(cell)
        datetime.fromisoformat(row["time_hour"])
    except ValueError:
        return None
    return row if all(row[name] is not None for name in _NEVER_NULL) else None
