"""Values as people write them in options, and read them in cells."""

from __future__ import annotations

import contextlib
import time
from datetime import datetime

from trunkline.core.errors import ConfigurationError


def duration(text: str, option: str) -> float:
    """Seconds of `30s`, `5m`, `1h30m`. Raises `ConfigurationError` that names the option."""
    from trunkline.core.settings import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise ConfigurationError(str(error), where=option, code="option.duration") from error


def moment(text: str, option: str) -> float:
    """Unix seconds of a time with its zone, or of `2h` before now. Raises `ConfigurationError` that names the option."""
    from trunkline.core.settings import parse_duration

    with contextlib.suppress(ValueError):
        return time.time() - float(parse_duration(text))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ConfigurationError(
            f"{text!r} is no time with its zone",
            where=option,
            hint="write 2026-01-31T00:00:00Z, or 2h for two hours ago",
            code="option.time",
        )
    return found.timestamp()


def elapsed(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = int(max(seconds, 0))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2])
