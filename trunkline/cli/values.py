"""Values of options, and objects as data."""

from __future__ import annotations

from datetime import UTC, datetime

from trunkline.core.errors import ConfigurationError


def duration(text: str, option: str) -> float:
    """Seconds of `30s`, `5m`, `1h30m`. Raises `ConfigurationError` that names the option."""
    from trunkline.core.settings import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise ConfigurationError(str(error), where=option, code="option.duration") from error


def utc(milliseconds: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
