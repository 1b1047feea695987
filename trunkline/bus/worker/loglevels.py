"""The log level that people want of workers: records of `_trunkline.control`, which reach every worker wherever it runs.

A level is for the processes that run when it is asked for: one that starts later has the level that it was started with.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import orjson

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.commands import Effect, Latest, Write, carry_out
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.core.log import get_logger, set_level

log = get_logger(__name__)
VERSION = 1
KEY = "@loglevel"
"""The key of these records; of a level for one worker a dot and its id follow. No pipeline's name begins so."""


@dataclass(frozen=True, slots=True)
class LevelWish:
    """Which level somebody wants, of one worker or, where `worker` is empty, of all. `at` is in Unix seconds."""

    level: str
    worker: str
    by: str
    at: float

    @property
    def key(self) -> str:
        """The key of its record."""
        return f"{KEY}.{self.worker}" if self.worker else KEY


def want_level(settings: KafkaSettings, names: Names, wish: LevelWish) -> None:
    """Writes it down, with an entry of the audit trail in the same transaction. Raises our error for Kafka's."""
    value = orjson.dumps({"v": VERSION, "level": wish.level, "by": wish.by, "at": wish.at})
    details = {"after": {"level": wish.level}}
    entry = Entry(wish.at, wish.by, "worker.loglevel", "", details, subject=wish.worker or "every worker")

    def decide(_latest: Latest) -> Effect[None]:
        return Effect(None, [Write(names.control, wish.key.encode(), value)], [entry])

    carry_out(settings, names, names.control, decide, by=wish.by, what="the log level can't be asked for")


def take_level(worker: str, key: str, value: bytes | None) -> bool:
    """Whether a record of the control topic is of log levels; where it is for this worker, its level holds from now on."""
    if not key.startswith("@"):
        return False
    if value is not None and key in {KEY, f"{KEY}.{worker}"}:
        try:
            data = orjson.loads(value)
            set_level(data["level"])
        except (ValueError, TypeError, KeyError) as error:
            log.error("a log level that was asked for is not known here", cause=str(error))
            return True
        log.warning("the log level was changed", to=data["level"], by=data["by"])
    return True


def wish(level: str, worker: str, by: str) -> LevelWish:
    """What is wanted now."""
    return LevelWish(level, worker, by, time.time())
