"""Streams of plain records, with the short way and the long way through them side by side."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Message

from streams.filter import FilterStep
from streams.map import MapStep
from streams.mask import MaskStep
from tests.unit.bus.records import Schemas
from trunkline.bus.stream.transform import CompiledStep, FailedRecordError, Transform
from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import RejectedError
from trunkline.core.manifests.models import Target
from trunkline.core.routing import compile_routes
from trunkline.registry.codec import Decoder

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": ["null", "string"]},
        {"name": "amount", "type": "double"},
        {"name": "note", "type": "string"},
    ],
}
OURS: list[tuple[str, bytes | None]] = [("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_correlationid", b"c1")]
KEEP = {"when": "event.amount > 0.0"}
CHANGE = {"set": {"amount": "event.amount * 2.0", "note": "event.note.substring(0, 3)"}}
BOTH = [{"topic": "big", "when": "event.amount >= 10.0"}, {"topic": "rest", "otherwise": True, "key": "event.id"}]


class Stream:
    """A transform of steps that may have a plain form."""

    def __init__(self, steps: list[tuple[type[Step], Any]], targets: list[dict[str, Any]], trust: Any = "internal"):
        schemas = Schemas()
        self.encoder = schemas.encoder(ORDER)
        compiled = []
        for kind, config in steps:
            step = kind(kind.parse(config))
            step.prepare(StepContext("s", ORDER, "spec", ORDER))
            compiled.append(CompiledStep.of("step", step, "dead-letter"))
        routes = compile_routes([Target(**target) for target in targets], ORDER, "spec")
        self.transform = Transform(
            Decoder(schemas, trust=trust), compiled, routes, lambda _topic: self.encoder, {}, topic_id="Tid"
        )

    def order(self, **values: Any) -> bytes:
        return self.encoder.encode({"id": 1, "customer": "acme", "amount": 5.0, "note": "a note", **values})

    def long_way(self, value: bytes) -> list[tuple[Any, ...]]:
        return [tuple(one) for one in self.transform(message(value), "orders", 0, 7)[0]]

    def long_way_or_none(self, value: bytes) -> list[tuple[Any, ...]] | None:
        try:
            return self.long_way(value)
        except FailedRecordError:
            return None

    def short_way_or_none(self, value: bytes) -> list[tuple[Any, ...]] | None:
        try:
            return self.short_way(value)
        except RejectedError:
            return None

    def short_way(self, value: bytes) -> list[tuple[Any, ...]]:
        return list(self.transform.plain[value[:5]](value, b"key", OURS))


def message(value: bytes | None, headers: Any = OURS) -> Message:
    return Message("orders", 0, 7, b"key", value, headers)


STREAMS = {
    "passes": Stream([], [{"topic": "out"}]),
    "filters": Stream([(FilterStep, KEEP)], [{"topic": "out"}]),
    "changes": Stream([(FilterStep, KEEP), (MapStep, CHANGE)], [{"topic": "out"}]),
    "masks": Stream([(MaskStep, {"fields": {"note": "redact"}})], [{"topic": "out"}]),
    "routes": Stream([(FilterStep, KEEP)], BOTH),
    "changes and routes": Stream([(MapStep, CHANGE)], BOTH),
}
