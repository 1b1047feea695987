"""Where source splits stand: `_trunkline.positions`, compacted by pipeline and split, written in the transaction of their records."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson

from trunkline.bus.kafka import KafkaSettings, read_all
from trunkline.bus.names import Names
from trunkline.core.contracts import Position
from trunkline.core.errors import ConfigurationError

VERSION = 1


@dataclass(frozen=True, slots=True)
class SplitPosition:
    """Where one split stands, and what became of what it read: `read` = `delivered` + `filtered` + `dead`."""

    position: Position | None = None
    read: int = 0
    delivered: int = 0
    filtered: int = 0
    dead: int = 0
    outputs: int = 0
    duplicates: int = 0
    finished: bool = False

    def to_record(self) -> bytes:
        """The value in the positions topic."""
        return orjson.dumps(
            {"v": VERSION, "at": int(time.time() * 1000), **{name: getattr(self, name) for name in self.__slots__}}
        )

    @classmethod
    def from_record(cls, value: bytes) -> SplitPosition:
        """The position in a record. Raises `ConfigurationError` for a newer version."""
        data: dict[str, Any] = orjson.loads(value)
        if data.pop("v") > VERSION:
            raise ConfigurationError(
                "the position was written by a newer Trunkline", hint="run that version", code="position.version"
            )
        data.pop("at")
        return cls(**data)


COUNTED = ("read", "delivered", "filtered", "dead", "outputs", "duplicates")


def summed(positions: Collection[SplitPosition]) -> dict[str, int]:
    """The counts of several splits together; empty without any."""
    return {name: sum(getattr(one, name) for one in positions) for name in COUNTED} if positions else {}


def position_key(pipeline: str, split: str) -> bytes:
    """The key of a split in the positions topic."""
    return f"{pipeline}/{split}".encode()


def read_positions(settings: KafkaSettings, names: Names) -> dict[tuple[str, str], SplitPosition]:
    """All positions by pipeline and split, as committed now."""
    found: dict[tuple[str, str], SplitPosition] = {}
    for message in read_all(settings, names.positions):
        pipeline, _, split = (message.key() or b"").decode().partition("/")
        value = message.value()
        if value is None:
            found.pop((pipeline, split), None)
        else:
            found[pipeline, split] = SplitPosition.from_record(value)
    return found
