"""Marks: which failures were sent again, in `_trunkline.redriven`, compacted by pipeline and place.

A mark names the record that failed, not the dead letter: a record that was saved twice around a crash is sent again once.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections import defaultdict

import orjson
from confluent_kafka import Producer

from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.kafka import KafkaSettings, produce, read_all
from trunkline.bus.names import Names

VERSION = 1
_OWN = "@"


class Marks:
    """The marks of one pipeline: eight bytes each, because there may be millions."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], array[int]] = {}
        self._fresh: dict[tuple[str, int], set[int]] = defaultdict(set)

    @classmethod
    def read(cls, settings: KafkaSettings, names: Names, pipeline: str) -> Marks:
        """The marks as they are now; waits for those of a transaction that is open."""
        prefix = f"{pipeline}/".encode()
        found: dict[tuple[str, int], array[int]] = defaultdict(lambda: array("q"))
        for message in read_all(settings, names.redriven):
            key = message.key() or b""
            if key.startswith(prefix) and message.value() is not None:
                group, offset = _parsed(key[len(prefix) :].decode("utf-8", "replace"))
                found[group].append(offset)
        marks = cls()
        marks._known = {group: array("q", sorted(offsets)) for group, offsets in found.items()}
        return marks

    def __contains__(self, letter: DeadLetter) -> bool:
        group, offset = failure_of(letter)
        if offset in self._fresh[group]:
            return True
        known = self._known.get(group)
        if known is None:
            return False
        index = bisect_left(known, offset)
        return index < len(known) and known[index] == offset

    def add(self, letter: DeadLetter) -> None:
        """The letter was sent again."""
        group, offset = failure_of(letter)
        self._fresh[group].add(offset)


def failure_of(letter: DeadLetter) -> tuple[tuple[str, int], int]:
    """What names one failure: the place of the record that failed; of what never was a record the letter's own."""
    topic, partition, offset = letter.origin
    return ((topic, partition), offset) if partition >= 0 else ((_OWN, letter.partition), letter.offset)


def write_mark(producer: Producer, names: Names, pipeline: str, letter: DeadLetter, run: str, by: str) -> None:
    """Hands the mark of a letter to the producer, whose open transaction sends the letter again."""
    (topic, partition), offset = failure_of(letter)
    place = f"{topic}{partition}/{offset}" if topic == _OWN else f"{topic}/{partition}/{offset}"
    mark = orjson.dumps({"v": VERSION, "run": run, "by": by, "at": time.time()})
    produce(producer, names.redriven, mark, f"{pipeline}/{place}".encode(), [])


def _parsed(text: str) -> tuple[tuple[str, int], int]:
    place, _, offset = text.rpartition("/")
    if place.startswith(_OWN):
        return (_OWN, int(place[1:])), int(offset)
    topic, _, partition = place.rpartition("/")
    return (topic, int(partition)), int(offset)
