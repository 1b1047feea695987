"""Principals as a worker knows them: read from their topic, followed, and when each key was used written back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import orjson

from trunkline.bus.commands import read_latest
from trunkline.bus.kafka import KafkaSettings, produce_and_wait
from trunkline.bus.names import Names
from trunkline.core.access.directory import Directory
from trunkline.core.access.principals import Caller
from trunkline.core.access.tokens import ISSUER, Issuer

USED: Final = "used:"
"""Before the id of a key, the key of the record that says when it was used. Names of principals have no colon."""
USED_SECONDS: Final = 60.0
"""How exact that is."""


class Principals:
    """Keeps a directory. What blocks belongs in a thread; the rest on the event loop."""

    def __init__(self, settings: KafkaSettings, names: Names, worker: str) -> None:
        self._settings = settings
        self._names = names
        self._worker = worker
        self._issuer: Issuer | None = None
        self.directory = Directory()

    def read(self) -> list[tuple[str, bytes | None]]:
        """What the topic has now, for `heard`. Blocks."""
        latest = read_latest(self._settings, self._names.principals)
        return [(key, found.value) for key, found in latest.items()]

    def heard(self, key: str, value: bytes | None, _offset: int = 0) -> None:
        """Takes a record of the topic."""
        if not key.startswith(USED):
            self.directory.heard(key, value)

    def token(self, caller: Caller) -> str:
        """A token for a caller that signed in with a key. Blocks the first time, until every worker can know its signature."""
        now = time.time()
        if self._issuer is None or self._issuer.until < now:
            issuer = Issuer(self._worker, now)
            for ended in self.directory.tokens.ended(now):
                self._write(ISSUER + ended, None)
            record = issuer.record()
            self._write(ISSUER + issuer.id, record)
            self.directory.tokens.heard(issuer.id, record)  # the others hear of it in a moment
            self._issuer = issuer
        return self._issuer.issue(caller, now)

    def tell_used(self) -> Callable[[], None]:
        """What writes when keys were used since it was told last. That blocks, and raises our error for Kafka's."""
        used = self.directory.used()

        def tell() -> None:
            for key, at in used.items():
                self._write(USED + key, orjson.dumps({"v": 1, "at": at}))

        return tell

    def _write(self, key: str, value: bytes | None) -> None:
        produce_and_wait(self._settings.producer(), self._names.principals, value, key.encode())
