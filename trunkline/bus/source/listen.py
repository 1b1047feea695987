"""Listening on a port that stays the same: a port of 0 takes a free one and, after a restart, the same one again if it is free.

Senders of webhooks and clients of the registry are told an address once.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from aiohttp import web

from trunkline.core.errors import UnavailableError

BACKLOG = 512


class Ports:
    """The ports that a worker had, kept in its data folder."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def last(self, name: str) -> int:
        """The port of a listener's last time, 0 where there was none."""
        try:
            return int(json.loads(self._file.read_text(encoding="utf-8")).get(name, 0))
        except (OSError, ValueError, AttributeError, TypeError):
            return 0

    def keep(self, name: str, port: int) -> None:
        """Remembers a port; a folder that can't be written costs only the memory."""
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
            self._file.write_text(json.dumps({**known, name: port}), encoding="utf-8")


async def listen(
    runner: web.AppRunner | web.ServerRunner,
    address: tuple[str, int],
    ports: Ports,
    name: str,
    advice: str,
) -> str:
    """Listens with a runner that is set up, and returns the URL. Raises `UnavailableError` (`address.taken`)."""
    host, port = address
    for wanted in [port] if port else [*filter(None, [ports.last(name)]), 0]:
        try:
            await web.TCPSite(runner, host, wanted, backlog=BACKLOG).start()
        except OSError as error:
            if wanted == 0 or port:
                raise UnavailableError(
                    f"{host}:{wanted} can't be listened on: {error.strerror}", hint=advice, code="address.taken"
                ) from error
            continue
        break
    taken_host, taken = runner.addresses[0][:2]
    if not port:
        ports.keep(name, taken)
    return f"http://[{taken_host}]:{taken}" if ":" in taken_host else f"http://{taken_host}:{taken}"
