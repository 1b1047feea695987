"""The child of row 20: reads broken Avro data every way that a worker may take, and compares what comes of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from tests.chaos.faults.child import Meter, answer_with
from tests.unit.bus.plain_streams import STREAMS
from tests.unit.registry.damage import BROKEN, TRUST, busy_datum, busy_schema, mutated
from tests.unit.registry.sources import SchemaShelf, record, zigzag
from trunkline.core.errors import RejectedError
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.wire import frame

Trust = Literal["internal", "external"]
REFUSED = object()


def crafted() -> list[tuple[str, Any, bytes, tuple[str, ...]]]:
    """The broken data as they are, and each as the last field of a record."""
    inside = [
        (
            f"{name}, in a record",
            record(("before", "string"), ("x", schema), name="test.Around"),
            zigzag(1) + b"a" + body,
            trusts,
        )
        for name, schema, body, trusts in BROKEN
    ]
    return [*BROKEN, *inside]


def _read(decoder: Decoder, value: bytes) -> Any:
    try:
        return decoder.decode(value)[1]
    except RejectedError:
        return REFUSED


def _tried(read: Callable[[bytes], Any] | None, value: bytes) -> Any:
    """What a reader of plain records gives; it may raise anything, and the long way decides then."""
    if read is None:
        return REFUSED
    try:
        return read(value)
    except Exception:  # noqa: BLE001
        return REFUSED


def _plainly(decoder: Decoder, value: bytes) -> Any:
    return _tried(decoder.plain_reader(value), value)


class Bench:
    """The ways of one schema: guarded, unguarded, plain and whole, plain and of one field."""

    def __init__(self, shelf: SchemaShelf, field: str) -> None:
        self.guarded, self.unguarded = Decoder(shelf, trust="external"), Decoder(shelf)
        self._field = field

    def differences(self, value: bytes) -> list[str]:
        """What the ways say differently of a value, where they should not."""
        found = []
        strict, loose = _read(self.guarded, value), _read(self.unguarded, value)
        if strict is not REFUSED and repr(strict) != repr(loose):
            found.append("guarded and unguarded differ")
        plain = _tried(self.unguarded.plain_reader(value), value)
        if plain is not REFUSED and repr(plain) != repr(loose):
            found.append("the plain reader differs")
        part = _tried(self.unguarded.plain_reader(value, {self._field}), value)
        if part is not REFUSED and loose is not REFUSED and repr(part[self._field]) != repr(loose[self._field]):
            found.append("the reader of one field differs")
        if self.guarded.plain_reader(value) is not None:
            found.append("what strangers write has a short way")
        return found


def _streams_differ(value: bytes) -> list[str]:
    """Streams of plain records: where the short way does not raise and reads all, it gives what the long way gives."""
    found = []
    for name in ("changes", "masks", "changes and routes"):
        stream = STREAMS[name]
        short = _tried(stream.short_way, value)
        if short is not REFUSED and short != stream.long_way_or_none(value):
            found.append(f"the stream that {name}")
    return found


def work(order: dict[str, Any]) -> dict[str, Any]:
    """Mutated data of a rich and of a plain schema, and the crafted ones."""
    chance = random.Random(order["seed"])
    rich, plain = SchemaShelf(busy_schema()), STREAMS["changes"]
    good = Encoder(rich.schemas[1]).encode(busy_datum())
    order_shelf = SchemaShelf(plain.encoder.schema.json)
    good_plain = plain.order(note="a longer note, to be cut", customer="acme")
    for stream in STREAMS.values():
        stream.long_way(good_plain)  # a stream learns its short way from the first record
    benches = (Bench(rich, "id"), good), (Bench(order_shelf, "amount"), good_plain)
    wrong: list[str] = []
    meter, counts = Meter(), Counter[str]()
    for number in range(order["mutated"]):
        bench, whole = benches[number % 2]
        value = mutated(chance, whole)
        found = meter.run(f"mutated {number}", partial(bench.differences, value))
        if number % 2:
            found += meter.run(f"streams {number}", partial(_streams_differ, value))
        counts["decoded" if _read(bench.unguarded, value) is not REFUSED else "refused"] += 1
        wrong += [f"{what}: {value.hex()}" for what in found]
    cases = crafted()
    for name, schema, body, trusts in cases:
        shelf, value = SchemaShelf(schema), frame(1, body)
        for trust in TRUST:
            decoder = Decoder(shelf, trust=trust)
            found = meter.run(f"{name}, {trust}", partial(_read, decoder, value))
            short = meter.run(f"{name}, {trust}, plain", partial(_plainly, decoder, value))
            if trust in trusts and not (found is REFUSED and short is REFUSED):
                wrong.append(f"{name} was read on an {trust} topic")
    return {"wrong": wrong[:20], "crafted": len(cases), "mutated": order["mutated"], **counts, **meter.told()}


if __name__ == "__main__":
    answer_with(work)
