"""What a worker does for the audit trail: seals what is not sealed, notes heads where Kafka can't lose them, and tells of what it is asked.

Every worker does it; who is faster has sealed for all. What is in its home folder and in its log shows if the topic is tampered with.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from trunkline.bus.accounting.audit import SEAL_KEY, Entry, Seal, UnreadableRecordError, append, hash_of, parse
from trunkline.bus.accounting.notedheads import NotedHead, NotedHeads
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.sealing import seal
from trunkline.bus.states import reconnect_delay
from trunkline.core.errors import TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.metrics import gauge

log = get_logger(__name__)
SEAL_SECONDS: Final = 1.0
"""How long an entry waits for its seal, about: several workers are not to go at the same moment."""
TELL_SECONDS: Final = 5.0
SAY_SECONDS: Final = 60.0
"""How often the head is in the log while things change. The log is a place outside of Kafka, too."""


class AuditKeeper:
    """Follows the trail on the event loop; what blocks is done in threads."""

    def __init__(self, settings: KafkaSettings, names: Names, home: Path, worker: str) -> None:
        self._settings = settings
        self._names = names
        self._worker = worker
        self._heads = NotedHeads(home, settings, names)
        self._stirred = asyncio.Event()
        self._written = self._sealed = -1
        """The offset of the last entry that was heard of, and of the last record that a seal covers."""
        self._heard = -1
        self._unchecked = True
        self._expected: NotedHead | None = None
        """The last seal of a topic that was another one; of none what is noted on disk is expected."""
        self._head: NotedHead | None = None
        self._noted: NotedHead | None = None
        self._said = 0.0
        self._broken: str | None = None
        self._untold: list[Entry] = []
        self._telling = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, with what was left unsealed by others."""
        gauge("trunkline_audit_intact").set(1)
        self._task = asyncio.create_task(self._keep(), name="audit trail")

    async def close(self) -> None:
        """Ends. What is not sealed yet is sealed by whoever comes next."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._head is not None:
            self._say(self._head)

    def heard(self, key: str, value: bytes | None, offset: int) -> None:
        """A record of the trail came."""
        if offset <= self._heard:
            # The topic is another one of the same name, and is read from its beginning.
            self._written = self._sealed = -1
            if self._expected is None and self._head is not None:
                self._expected = replace(self._head, topic_id=self._noted.topic_id if self._noted is not None else "")
            self._unchecked, self._head = True, None
        self._heard = offset
        found: object = None
        if key.encode() == SEAL_KEY:
            with contextlib.suppress(UnreadableRecordError, TrunklineError):
                found = parse(value)
        if isinstance(found, Seal):
            self._sealed = max(self._sealed, found.last[0] if found.last is not None else -1)
            self._head = NotedHead(hash_of(value), found.number, offset, found.at)
            gauge("trunkline_audit_seals").set(found.number)
        else:
            self._written = offset
        self._measure()
        self._stirred.set()

    def _measure(self) -> None:
        gauge("trunkline_audit_unsealed").set(self._written > self._sealed)

    def status(self) -> dict[str, Any]:
        """How the trail stands, as data: the last seal that was heard of, and whether it goes on from what was noted before."""
        head = self._head or self._noted
        return {
            "intact": self._broken is None,
            "reason": self._broken,
            "seal": head.seal if head is not None else None,
            "head": head.head if head is not None else None,
            "sealed_at": head.at if head is not None else None,
            "unsealed": self._written > self._sealed,
        }

    async def tell(self, entry: Entry) -> bool:
        """Writes an entry of a change that this worker alone has made. Returns whether Kafka has it; else it is written later."""
        self._untold.append(entry)
        telling = asyncio.create_task(self._tell_all())
        done, _ = await asyncio.wait({telling}, timeout=TELL_SECONDS)
        return bool(done) and telling.result()

    async def _tell_all(self) -> bool:
        """Writes what waits, in its order. Returns whether Kafka has all of it."""
        async with self._telling:
            while self._untold:
                try:
                    await asyncio.to_thread(append, self._settings, self._names, self._untold[0])
                except TrunklineError as error:
                    log.warning("an audit entry can't be written yet", action=self._untold[0].action, reason=str(error))
                    self._stirred.set()
                    return False
                del self._untold[0]
        return True

    async def _keep(self) -> None:
        failures, warned = 0, 0.0
        self._stirred.set()
        self._written = max(self._written, 0)  # whether there is anything unsealed is seen when it is read
        while True:
            await self._stirred.wait()
            await asyncio.sleep(SEAL_SECONDS * random.uniform(0.6, 1.2))  # noqa: S311
            self._stirred.clear()
            try:
                if self._unchecked:
                    self._unchecked = False
                    await self._check()
                await self._tell_all()
                await self._seal()
                await self._note()
                failures = 0
            except TrunklineError as error:
                failures += 1
                # One passes: another worker was faster, or a transaction is open.
                if failures > 1 and time.monotonic() - warned > SAY_SECONDS:
                    warned = time.monotonic()
                    log.warning(
                        "the audit trail can't be kept; it is tried again",
                        reason=error.message,
                        code=error.code,
                        hint=error.hint,
                    )
                await asyncio.sleep(reconnect_delay(failures - 1))
                self._stirred.set()
            except Exception:
                log.exception("keeping the audit trail broke; it goes on")
                await asyncio.sleep(SAY_SECONDS)
                self._stirred.set()

    async def _seal(self) -> None:
        if self._written <= self._sealed:
            return
        upto = self._written
        await asyncio.to_thread(seal, self._settings, self._names, who=f"worker {self._worker}")
        self._sealed = max(self._sealed, upto)
        self._measure()

    async def _note(self) -> None:
        head = self._head
        if head is None or (self._noted is not None and head.head == self._noted.head):
            return
        self._noted = await asyncio.to_thread(self._heads.note, head)
        if time.monotonic() - self._said > SAY_SECONDS:
            self._say(head)

    def _say(self, head: NotedHead) -> None:
        self._said = time.monotonic()
        log.info(
            "the audit trail is sealed", head=head.head, seal=head.seal, topic=self._names.audit, offset=head.offset
        )

    async def _check(self) -> None:
        """Looks whether the trail is still the one of which a head was noted, by this worker or when one of this folder ran last."""
        try:
            await asyncio.to_thread(self._compare, self._expected)
            self._expected = None
        except BaseException:
            self._unchecked = True
            raise

    def _compare(self, expected: NotedHead | None) -> None:
        noted = expected or self._heads.read()
        if noted is None:
            return
        self._noted = self._noted or noted
        reason = self._heads.broken(noted)
        if reason is None:
            return
        self._broken = reason
        gauge("trunkline_audit_intact").set(0)
        log.error("the audit trail was tampered with", reason=self._broken, noted_at=noted.at, head=noted.head)
        details = {"reason": self._broken, "head": noted.head, "seal": noted.seal, "sealed_at": noted.at}
        who = f"worker {self._worker}"
        append(self._settings, self._names, Entry(time.time(), who, "audit.broken", "", details, subject="audit trail"))
