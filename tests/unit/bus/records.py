"""Records without a broker: an object with the methods of confluent-kafka's `Message`, and a registry in memory."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from trunkline.core.errors import RejectedError
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "string"},
        {"name": "amount", "type": "long", "default": 1},
    ],
}


class Schemas:
    """Where decoders look schemas up."""

    def __init__(self) -> None:
        self._by_id: dict[int, Schema] = {}
        self._ids = itertools.count(1)

    def add(self, schema: Any) -> Schema:
        found = Schema(schema).with_id(next(self._ids))
        assert found.id is not None
        self._by_id[found.id] = found
        return found

    def by_id(self, schema_id: int) -> Schema:
        try:
            return self._by_id[schema_id]
        except KeyError:
            raise RejectedError(f"no schema {schema_id}", code="record.unknown_schema") from None

    def latest(self, subject: str) -> Schema:
        raise NotImplementedError(subject)

    def register(self, subject: str, schema: Schema) -> Schema:
        raise NotImplementedError(subject)

    def encoder(self, schema: Any) -> Encoder:
        return Encoder(self.add(schema))


@dataclass
class Read:
    """A record as it is read."""

    content: bytes | None
    record_key: bytes | None = None
    pairs: list[tuple[str, bytes | None]] = field(default_factory=list)
    place: tuple[str, int, int] = ("orders", 0, 0)

    def value(self) -> bytes | None:
        return self.content

    def key(self) -> bytes | None:
        return self.record_key

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.pairs or None

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.place[2]

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_700_000_000_000)
