"""The Avro contracts that come with Trunkline: in the package when installed, at the top of a checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def shipped_folder() -> Path:
    """The folder of the shipped `.avsc` files, a folder per domain."""
    package = Path(__file__).parent.parent
    packaged = package / "registry" / "schemas"
    return packaged if packaged.is_dir() else package.parent / "schemas"


def shipped_schema(name: str) -> Any:
    """The schema of one shipped file in JSON form, such as `trunkline/schedule_tick.avsc`."""
    return json.loads((shipped_folder() / name).read_text(encoding="utf-8"))
