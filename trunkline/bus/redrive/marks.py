"""Marks: which failures were sent again, in `_trunkline.redriven`, compacted by pipeline and place.

A mark names the record that failed, not the dead letter: a record that was saved twice around a crash is sent again once. It covers
the letters below an end of the dead-letter topic: when offsets are set back and the record fails anew, that is another letter.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_right
from collections import defaultdict

import orjson
from confluent_kafka import Producer

from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.kafka import KafkaSettings, produce, read_all
from trunkline.bus.names import Names

VERSION = 1
_OWN = "@"
_ALL = 2**62
Group = tuple[str, int]
"""Topic and partition of records that failed."""


class Marks:
    """The marks of one pipeline: sixteen bytes each, because there may be millions."""

    def __init__(self) -> None:
        self._known: dict[Group, tuple[array[int], array[int]]] = {}
        self._fresh: dict[Group, set[int]] = defaultdict(set)

    @classmethod
    def read(cls, settings: KafkaSettings, names: Names, pipeline: str) -> Marks:
        """The marks as they are now; waits for those of a transaction that is open."""
        prefix = f"{pipeline}/".encode()
        found: dict[Group, list[tuple[int, int]]] = defaultdict(list)
        for message in read_all(settings, names.redriven):
            key, value = message.key() or b"", message.value()
            if key.startswith(prefix) and value is not None:
                group, offset = _parsed(key[len(prefix) :].decode("utf-8", "replace"))
                found[group].append((offset, orjson.loads(value).get("until", _ALL)))
        marks = cls()
        for group, pairs in found.items():
            pairs.sort()
            marks._known[group] = (array("q", (pair[0] for pair in pairs)), array("q", (pair[1] for pair in pairs)))
            pairs.clear()
        return marks

    def __contains__(self, letter: DeadLetter) -> bool:
        group, offset = failure_of(letter)
        if offset in self._fresh[group]:
            return True
        if group not in self._known:
            return False
        offsets, untils = self._known[group]
        # Before it is compacted, the topic may have several marks of one record: the last of them in order reaches furthest.
        index = bisect_right(offsets, offset) - 1
        return index >= 0 and offsets[index] == offset and letter.offset < untils[index]

    def add(self, letter: DeadLetter) -> None:
        """The letter was sent again."""
        group, offset = failure_of(letter)
        self._fresh[group].add(offset)


def failure_of(letter: DeadLetter) -> tuple[Group, int]:
    """What names one failure: the place of the record that failed; of what never was a record the letter's own."""
    topic, partition, offset = letter.origin
    return ((topic, partition), offset) if partition >= 0 else ((_OWN, letter.partition), letter.offset)


def write_mark(
    producer: Producer, names: Names, pipeline: str, letter: DeadLetter, end: int, run: str, by: str
) -> None:
    """Hands the mark of a letter to the producer, whose open transaction sends the letter again. It covers letters below `end`."""
    (topic, partition), offset = failure_of(letter)
    place = f"{topic}{partition}/{offset}" if topic == _OWN else f"{topic}/{partition}/{offset}"
    until = max(end, letter.offset + 1)
    mark = orjson.dumps({"v": VERSION, "run": run, "by": by, "at": time.time(), "until": until})
    produce(producer, names.redriven, mark, f"{pipeline}/{place}".encode(), [])


def _parsed(text: str) -> tuple[Group, int]:
    place, _, offset = text.rpartition("/")
    if place.startswith(_OWN):
        return (_OWN, int(place[1:])), int(offset)
    topic, _, partition = place.rpartition("/")
    return (topic, int(partition)), int(offset)
