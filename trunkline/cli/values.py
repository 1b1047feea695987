"""Values as people write them in options, and read them in cells."""

from __future__ import annotations

from trunkline.core.errors import ConfigurationError


def duration(text: str, option: str) -> float:
    """Seconds of `30s`, `5m`, `1h30m`. Raises `ConfigurationError` that names the option."""
    from trunkline.core.settings import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise ConfigurationError(str(error), where=option, code="option.duration") from error


def elapsed(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = int(max(seconds, 0))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2])
