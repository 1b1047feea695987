"""Times as the services write them into data."""

from __future__ import annotations

from datetime import UTC, datetime


def utc(milliseconds: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
