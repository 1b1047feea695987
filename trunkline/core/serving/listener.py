"""A listener: one address on which one server answers, with bounded connections, TLS where asked for, and a port that stays the same.

A port of 0 takes a free one and, after a restart, the same one again if it is free: senders of webhooks and clients of the registry are
told an address once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http import StreamWriter

from trunkline.core.access.fence import Fence
from trunkline.core.errors import UnavailableError
from trunkline.core.serving.connections import Connection, Connections, Limits, counting
from trunkline.core.serving.fencing import fenced
from trunkline.core.serving.tls import ServerTls

BACKLOG = 512
HANDSHAKE_SECONDS = 5.0
"""Until a client has agreed on its encryption, it is counted nowhere and holds a file: the default is a minute."""
KEEP_ALIVE_SECONDS = 30.0
"""How long a connection may wait for its next request, or for the first one to be complete but for its body."""
LINGERING_SECONDS = 1.0


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


class Listener:
    """One address. `name` is for the port that is remembered, `advice` says how to choose another address."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        advice: str,
        *,
        fence: Fence | None = None,
        limits: Limits | None = None,
        ports: Ports | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self._name = name
        self._address = address
        self._advice = advice
        self._ports = ports
        self._tls = tls
        self.fence = fence or Fence()
        self.connections = Connections(limits or Limits())
        self._runner: web.AppRunner | web.ServerRunner | None = None
        self._server: asyncio.Server | None = None
        self._changing = asyncio.Lock()
        self._ended = False
        self.url = ""

    async def start(self, runner: web.AppRunner | web.ServerRunner) -> None:
        """Answers with this runner from now on; one that listens already stays as it is.

        Raises `UnavailableError` (`address.taken`, and `address.ended` after `stop`), and `ConfigurationError` (`tls.files`) for a
        certificate that can't be used.
        """
        async with self._changing:  # I37: several who need it at once get one, and `stop` ends all there is
            if self._ended:
                raise UnavailableError(f"the {self._name} listens no more", code="address.ended")
            if self._runner is not None:
                return
            secure = await self._tls.begin() if self._tls is not None else None
            await runner.setup()
            try:
                self._server = await self._listen(runner, secure)
            except BaseException:
                await runner.cleanup()
                await self._end_tls()
                raise
            self._runner = runner
            self.url = self._shown(self._server)

    async def stop(self) -> None:
        """Answers what is under way, and nobody else ever again."""
        async with self._changing:
            self._ended = True
            server, runner = self._server, self._runner
            self._server = self._runner = None
            if server is not None:
                server.close()
            self.connections.end_waiting()
            if runner is not None:
                await runner.cleanup()
            await self._end_tls()

    async def _end_tls(self) -> None:
        if self._tls is not None:
            await self._tls.end()

    async def _listen(self, runner: web.AppRunner | web.ServerRunner, secure: Any) -> asyncio.Server:
        server = runner.server
        assert server is not None
        server.request_handler = counting(fenced(server.request_handler, self.fence))
        server.request_factory = partial(_quiet, server.request_factory)
        made = partial(
            Connection,
            self.connections,
            server,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=LINGERING_SECONDS,
            # Who decompresses has limits of his own, before and behind it.
            auto_decompress=False,
            access_log=None,
        )
        host, port = self._address
        last = self._ports.last(self._name) if self._ports is not None else 0
        for wanted in [port] if port else [*filter(None, [last]), 0]:
            try:
                return await asyncio.get_running_loop().create_server(
                    made,
                    host,
                    wanted,
                    ssl=secure,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS if secure is not None else None,
                    backlog=BACKLOG,
                    reuse_address=True,
                )
            except OSError as error:
                if wanted == 0 or port:
                    raise UnavailableError(
                        f"{host}:{wanted} can't be listened on: {error.strerror}",
                        hint=self._advice,
                        code="address.taken",
                    ) from error
        raise AssertionError("the last attempt returns or raises")

    def _shown(self, server: asyncio.Server) -> str:
        host, port = server.sockets[0].getsockname()[:2]
        if not self._address[1] and self._ports is not None:
            self._ports.keep(self._name, port)
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class _QuietWriter(StreamWriter):
    """Writes answers without the name and version of what serves them."""

    async def write_headers(self, status_line: str, headers: Any) -> None:
        headers.popall(hdrs.SERVER, None)
        await super().write_headers(status_line, headers)


def _quiet(made: Any, message: Any, payload: Any, protocol: Any, _writer: Any, task: Any) -> web.BaseRequest:
    request: web.BaseRequest = made(
        message, payload, protocol, _QuietWriter(protocol, asyncio.get_running_loop()), task
    )
    return request
