"""Which offsets of a range a pipeline settled, as the trace says, beside those that the topic has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson
from confluent_kafka import Consumer

from trunkline.bus.accounting.trace import VERSION
from trunkline.bus.kafka import KafkaSettings, closing, end_offsets, offset_of, read_all, read_range, watermarks
from trunkline.bus.names import Names

WINDOW = 2**26
"""Offsets looked at in one go: a bit for each in the topic and in the trace are 16 MiB."""
MOST = 20
"""So many of each are named."""


@dataclass(frozen=True, slots=True)
class Named:
    """Offsets with a record and without an outcome, and the reverse, the first MOST of each; `unnamed` records are older than the trace."""

    missing: tuple[int, ...] = ()
    extra: tuple[int, ...] = ()
    unnamed: int = 0


def name_offsets(
    settings: KafkaSettings, names: Names, pipeline: str, place: tuple[str, int], first: int, end: int
) -> Named:
    """Compares topic and trace over the offsets from `first` to before `end`. Raises our error for Kafka's."""
    missing: list[int] = []
    extra: list[int] = []
    unnamed = 0
    with closing(settings.reader(eof=True)) as trace_reader:
        known_since = _kept_since(settings, trace_reader, names.trace)
    for low in range(first, end, WINDOW):
        high = min(end, low + WINDOW)
        settled = _settled(settings, names, pipeline, place, low, high)
        present = bytearray(len(settled))
        # A reader of its own for each: what is left over of a window could be taken for the end of the next one.
        with closing(settings.reader(eof=True)) as reader:
            for message in read_range(reader, *place, low, high):
                index = offset_of(message) - low
                _set(present, index)
                if _has(settled, index):
                    continue
                if message.timestamp()[1] < known_since:
                    unnamed += 1
                elif len(missing) < MOST:
                    missing.append(offset_of(message))
        extra += [low + index for index in _only(settled, present, MOST - len(extra))]
    return Named(tuple(missing), tuple(extra), unnamed)


def _settled(
    settings: KafkaSettings, names: Names, pipeline: str, place: tuple[str, int], low: int, high: int
) -> bytearray:
    bits = bytearray((high - low + 7) // 8)
    needle = f'"pipeline":{orjson.dumps(pipeline).decode()}'.encode()
    for message in read_all(settings, names.trace):
        value = message.value() or b""
        if needle not in value:
            continue
        data = orjson.loads(value)
        if data.get("v") == VERSION and data["pipeline"] == pipeline and (data["topic"], data["partition"]) == place:
            for offset in data["offsets"]:
                if low <= offset < high:
                    _set(bits, offset - low)
    return bits


def _kept_since(settings: KafkaSettings, reader: Consumer, trace: str) -> int:
    """Unix milliseconds from which on the trace is whole: 0 where nothing of it has expired."""
    since = 0
    for number, end in end_offsets(settings, trace, committed_only=True).items():
        low = watermarks(reader, trace, number)[0]
        oldest = next(read_range(reader, trace, number, low, end), None)
        if low > 0 and oldest is not None:
            since = max(since, oldest.timestamp()[1])
    return since


def _set(bits: bytearray, index: int) -> None:
    bits[index >> 3] |= 1 << (index & 7)


def _has(bits: bytearray, index: int) -> bool:
    return bool(bits[index >> 3] & 1 << (index & 7))


def _only(left: bytearray, right: bytearray, most: int) -> Iterator[int]:
    """The first bits that are set in `left` alone."""
    for place, (a, b) in enumerate(zip(left, right, strict=True)):
        if most <= 0:
            return
        alone = a & ~b
        if alone:
            for bit in range(8):
                if alone & 1 << bit and most > 0:
                    most -= 1
                    yield place * 8 + bit
