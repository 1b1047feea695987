"""The process of `HttpSinkServer`: `http_sink_server.py PORT JOURNAL SCRIPT`. Writes its port as the first line.

A line is in the journal before its answer leaves: what a client was told survives a kill of this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import web

_GARBAGE = b"\x00\x16\x03 this is no HTTP\r\n\r\n"


class Server:
    """The state: what came, what took effect, and the script."""

    def __init__(self, journal: Path, script: Path) -> None:
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._keys: set[str] = set()
        self._changed = asyncio.Event()
        self._script = script
        if journal.exists():
            self._remember(journal)
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.reload()

    def _remember(self, journal: Path) -> None:
        text = journal.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) != len(text):
            journal.write_bytes(whole)  # a line that a kill cut: nobody was told
        for line in whole.splitlines():
            _at, path, key, event, _attempt, _answer, effect = json.loads(line)
            self._attempts[path, event] += 1
            if effect and key:
                self._keys.add(key)

    def reload(self) -> None:
        """Reads the script again."""
        script = json.loads(self._script.read_text(encoding="utf-8"))
        self._seed, self._id_field, self._rules = script["seed"], script["id"], script["rules"]
        for rule in self._rules:
            rule["ids"] = None if rule["ids"] is None else set(rule["ids"])
        self._changed.set()
        self._changed = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        body = await request.read()
        if request.path == "/_reload":
            self.reload()
            return web.Response()
        event = self._event(body)
        self._attempts[request.path, event] += 1
        attempt = self._attempts[request.path, event]
        rule = self._rule(request.path, event, attempt)
        answer: int | str = 200 if rule is None else rule["answer"]
        if rule is not None and rule["delay"]:
            await asyncio.sleep(rule["delay"])
        if rule is not None and rule["held"]:
            await self._changed.wait()
        key = request.headers.get("Idempotency-Key", "")
        takes = answer == "effect-then-drop" or (isinstance(answer, int) and 200 <= answer < 300)
        effect = takes and (not key or key not in self._keys)
        if effect and key:
            self._keys.add(key)
        line = orjson.dumps([time.time(), request.path, key, event, attempt, str(answer), effect])
        os.write(self._journal, line + b"\n")
        return await self._answered(request, answer, rule)

    async def _answered(
        self, request: web.BaseRequest, answer: int | str, rule: dict[str, Any] | None
    ) -> web.StreamResponse:
        if isinstance(answer, int):
            return web.Response(status=answer, headers=dict(rule["headers"]) if rule else None)
        transport = request.transport
        if answer == "time-out":
            await asyncio.Event().wait()  # for ever: the client goes away first, or the server ends
        elif answer == "garbage" and transport is not None:
            transport.write(_GARBAGE)
            transport.close()
        elif transport is not None:
            transport.abort()
        return web.Response()

    def _event(self, body: bytes) -> str:
        try:
            return str(orjson.loads(body)[self._id_field])
        except (ValueError, KeyError, TypeError):
            return f"body {zlib.crc32(body):08x}"

    def _rule(self, path: str, event: str, attempt: int) -> dict[str, Any] | None:
        for number, rule in enumerate(self._rules):
            if rule["path"] not in (None, path) or (rule["attempts"] is not None and attempt > rule["attempts"]):
                continue
            if rule["ids"] is not None and event not in rule["ids"]:
                continue
            chosen = zlib.crc32(f"{self._seed}:{number}:{path}:{event}".encode()) / 2**32 < rule["share"]
            if chosen:
                found: dict[str, Any] = rule
                return found
        return None


async def main(port: int, journal: Path, script: Path) -> None:
    """Serves until SIGTERM."""
    server = Server(journal, script)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    runner = web.ServerRunner(web.Server(server.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=512, reuse_address=True).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
