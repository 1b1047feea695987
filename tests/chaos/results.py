"""What was run already: results on disk, so that a campaign can be broken off and gone on with."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.campaign import Result, Row

ROOT = Path(__file__).resolve().parents[2]
_ENGINE = ("trunkline", "connectors", "streams", "sinks")


@dataclass(frozen=True, slots=True)
class Stored:
    """A result, and the version of everything that brought it about."""

    result: Result
    code: str
    versions: dict[str, str]


class Results:
    """The results of a folder, a file for each row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def seed(self) -> int:
        """The campaign's seed: random at first, then the same one until the folder is gone."""
        file = self.folder / "seed"
        if not file.exists():
            file.write_text(f"{random.SystemRandom().randrange(10**6)}\n", encoding="utf-8")
        return int(file.read_text(encoding="utf-8"))

    def store(self, stored: Stored) -> None:
        """Keeps a result in place of the row's earlier one."""
        file = self._file(stored.result.number)
        file.write_text(json.dumps(asdict(stored), indent=2) + "\n", encoding="utf-8")

    def of(self, number: int) -> Stored | None:
        """The last result of a row."""
        try:
            found: dict[str, Any] = json.loads(self._file(number).read_text(encoding="utf-8"))
        except OSError:
            return None
        return Stored(Result(**found["result"]), found["code"], found["versions"])

    def passed(self, one: Row, seed: int) -> bool:
        """Whether a row passed already, with this seed and this code."""
        last = self.of(one.number)
        return last is not None and last.result.passed and last.result.seed == seed and last.code == code_version(one)

    def _file(self, number: int) -> Path:
        return self.folder / f"row-{number:02}.json"


def code_version(one: Row) -> str:
    """A hash of all code that a row's result depends on: the engine, the plug-ins, the campaign's tools, and the row itself."""
    files = [path for room in _ENGINE for path in (ROOT / room).rglob("*.py")]
    tools = ROOT / "tests" / "chaos"
    files += [path for path in tools.rglob("*.py") if path.parent.name != "rows" and not path.name.startswith("test_")]
    files.append(Path(one.work.__code__.co_filename))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
