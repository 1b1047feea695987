"""Marks: which failures were sent again or dropped, in `_trunkline.redriven`, compacted by pipeline and place.

A mark names the record that failed, not the dead letter: a record that was saved twice around a crash is sent again once. It covers
the letters below an end of the dead-letter topic: when offsets are set back and the record fails anew, that is another letter. Of both
topics it has the ids, since a topic that was made anew has other records and letters at the same offsets.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from confluent_kafka import Producer

from trunkline.bus.deadletters import TOPIC_ID, DeadLetter
from trunkline.bus.kafka import KafkaSettings, produce, read_all
from trunkline.bus.names import Names
from trunkline.bus.topics import topic_identities
from trunkline.core.jsonable import note_bytes

VERSION = 1
_OWN = "@"
_ALL = 2**62
Group = tuple[str, str, int]
"""Topic, its id and partition of records that failed."""


class Marks:
    """The marks of one pipeline: sixteen bytes each, because there may be millions."""

    def __init__(self) -> None:
        self._known: dict[Group, tuple[array[int], array[int]]] = {}
        self._fresh: dict[Group, set[int]] = defaultdict(set)

    @classmethod
    def read(cls, settings: KafkaSettings, names: Names, pipeline: str) -> Marks:
        """The marks of letters in the dead-letter topic that there is now; waits for those of a transaction that is open."""
        prefix, letters = f"{pipeline}/".encode(), id_of_letters(settings, names, pipeline)
        found: dict[Group, list[tuple[int, int]]] = defaultdict(list)
        for message in read_all(settings, names.redriven):
            key, value = message.key() or b"", message.value()
            if key.startswith(prefix) and value is not None:
                mark = orjson.loads(value)
                if mark.get("letters", letters) == letters:
                    group, offset = _parsed(key[len(prefix) :].decode("utf-8", "replace"))
                    found[group].append((offset, mark.get("until", _ALL)))
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
        """The letter was settled."""
        group, offset = failure_of(letter)
        self._fresh[group].add(offset)


def failure_of(letter: DeadLetter) -> tuple[Group, int]:
    """What names one failure: the place of the record that failed; of what never was a record the letter's own."""
    topic, partition, offset = letter.origin
    if partition < 0:
        return (_OWN, "", letter.partition), letter.offset
    return (topic, letter.header(TOPIC_ID), partition), offset


def id_of_letters(settings: KafkaSettings, names: Names, pipeline: str) -> str:
    """The id of a pipeline's dead-letter topic; empty where there is none."""
    topic = names.dead_letters(pipeline)
    found = topic_identities(settings, [topic]).get(topic)
    return found.id if found is not None else ""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a letter that waits no longer: it was sent again by the job `run`, or dropped for a reason. `at` is Unix seconds."""

    run: str
    by: str
    at: float
    dropped: str | None = None
    """Why it was dropped; None of one that was sent again."""

    def as_dict(self) -> dict[str, Any]:
        """The same as data."""
        return asdict(self)


def write_mark(
    producer: Producer, names: Names, pipeline: str, letter: DeadLetter, end: int, settled: Settled, *, letters: str
) -> None:
    """Hands the mark of a letter to the producer, whose open transaction sends the letter again or counts it as dropped.

    It covers letters below `end` in the dead-letter topic with the id `letters`.
    """
    until = max(end, letter.offset + 1)
    told = {name: value for name, value in settled.as_dict().items() if value is not None}
    mark = note_bytes({"v": VERSION, **told, "until": until, "letters": letters})
    produce(producer, names.redriven, mark, _key(pipeline, letter), [])


def settled(settings: KafkaSettings, names: Names, pipeline: str, letter: DeadLetter) -> Settled | None:
    """What became of a letter; None while it waits. Reads the marks of all pipelines."""
    key, letters, found = _key(pipeline, letter), id_of_letters(settings, names, pipeline), None
    for message in read_all(settings, names.redriven):
        value = message.value()
        if message.key() == key and value is not None:
            mark = orjson.loads(value)
            if mark.get("letters", letters) == letters and letter.offset < mark.get("until", _ALL):
                found = Settled(mark["run"], mark["by"], mark["at"], mark.get("dropped"))
    return found


def _key(pipeline: str, letter: DeadLetter) -> bytes:
    (topic, topic_id, partition), offset = failure_of(letter)
    return f"{pipeline}/{topic}/{topic_id}/{partition}/{offset}".encode()


def _parsed(text: str) -> tuple[Group, int]:
    topic, topic_id, partition, offset = text.split("/")
    return (topic, topic_id, int(partition)), int(offset)
