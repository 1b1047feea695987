"""Addresses that a worker listens on."""

from __future__ import annotations

from trunkline.core.errors import ConfigurationError


def address(text: str, option: str) -> tuple[str, int]:
    """Host and port of `host:port`, `:port` or `[::1]:port`. Raises `ConfigurationError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(
            f"{text!r} is no address",
            where=option,
            hint="write it like 127.0.0.1:8080; port 0 takes a free one",
            code="option.address",
        )
    return host.strip("[]") or "127.0.0.1", int(port)
