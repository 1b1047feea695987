"""Which letters a redrive sends, and in which order: chosen, counted and, where they are edited, tried before the first is sent.

What fails again after a redrive is a dead letter behind later ones of its key. So letters go in the order in which their records
were read first, partition by partition.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence

from confluent_kafka import Consumer, Message, TopicPartition

from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.kafka import KafkaSettings, offset_of, read_all
from trunkline.bus.redrive.jobs import RedriveOrder
from trunkline.bus.redrive.letters import LetterFilter
from trunkline.bus.redrive.marks import Marks
from trunkline.bus.redrive.resend import Way
from trunkline.core.errors import ConfigurationError, RejectedError, RetriableError

SHOWN = 10
NEAR = 2000
"""Offsets between two letters up to which reading on is cheaper than seeking."""
PATIENCE = 30.0


class Plan:
    """The letters of a redrive. Keeps three numbers for each, because there may be millions."""

    def __init__(self) -> None:
        self.total = 0
        self.capped = 0
        self.refused = 0
        self.refusals: list[str] = []
        """Of the first refused letters: place and reason."""
        self.settled_before: list[str] = []
        """Of the letters that were named by their places: those that were sent again or dropped already."""
        self.unjudged = 0
        """On how many letters the filter could not be evaluated; they are not chosen."""
        self.first_unjudged = ""
        self._partitions: dict[int, _Chosen] = {}

    def add(self, letter: DeadLetter) -> None:
        """Chooses a letter."""
        self._partitions.setdefault(letter.partition, _Chosen()).add(letter)

    def refuse(self, letter: DeadLetter, error: RejectedError) -> None:
        """Notes a letter that can't go as it is."""
        self.refused += 1
        if len(self.refusals) < SHOWN:
            self.refusals.append(f"{letter.place}: {error.message}" + (f" ({error.hint})" if error.hint else ""))

    def settle(self, limit: int | None) -> None:
        """All are chosen: brings them into order, and keeps the first `limit`."""
        left = limit
        for number in sorted(self._partitions):
            chosen = self._partitions[number]
            chosen.settle(left)
            self.total += len(chosen.offsets)
            left = None if left is None else left - len(chosen.offsets)

    def chunks(self, size: int) -> Iterator[tuple[int, list[int]]]:
        """Partition and offsets of the letters, up to `size` at a time, in the order in which they go."""
        for number in sorted(self._partitions):
            offsets = self._partitions[number].offsets
            for start in range(0, len(offsets), size):
                yield number, offsets[start : start + size].tolist()


class _Chosen:
    """The chosen letters of one partition of the dead-letter topic."""

    def __init__(self) -> None:
        self.offsets: array[int] = array("q")
        self._groups: array[int] = array("l")
        self._firsts: array[int] = array("q")
        self._known: dict[tuple[str, str, int], int] = {}
        self._latest: dict[int, int] = {}
        self._in_order = True

    def add(self, letter: DeadLetter) -> None:
        topic, partition, first = letter.first_origin
        if partition < 0:
            first = letter.offset
        group = self._known.setdefault((topic, letter.first_topic_id, partition), len(self._known))
        if first <= self._latest.get(group, -1):
            self._in_order = False
        self._latest[group] = first
        self.offsets.append(letter.offset)
        self._groups.append(group)
        self._firsts.append(first)

    def settle(self, limit: int | None) -> None:
        """Orders by the place where each record was read first, and leaves out what was saved twice."""
        groups, firsts = self._groups, self._firsts
        if not self._in_order:
            order = sorted(range(len(firsts)), key=lambda index: (groups[index], firsts[index]))
            unique = [
                index
                for before, index in zip([-1, *order], order, strict=False)
                if before < 0 or (groups[index], firsts[index]) != (groups[before], firsts[before])
            ]
            self.offsets = array("q", (self.offsets[index] for index in unique))
        self._groups, self._firsts = array("l"), array("q")
        if limit is not None:
            del self.offsets[max(0, limit) :]


def make_plan(
    settings: KafkaSettings,
    topic: str,
    order: RedriveOrder,
    marks: Marks,
    way: Way | None,
    *,
    matches: LetterFilter | None = None,
    sent: int = 0,
) -> Plan:
    """Chooses the letters of the dead-letter topic that `order` asks for and that wait; without a `way` nothing can refuse one.

    `sent` were sent already and count towards the limit. Raises `ConfigurationError` (`edit.refused`) with places, fields and reasons
    where an edit does not fit a letter, before anything is sent.
    """
    plan = Plan()
    for letter in _letters(settings, topic, order):
        if letter in marks:
            if order.places:
                plan.settled_before.append(letter.place)
            continue
        if matches is not None and not matches(letter):
            continue
        if letter.redrives >= order.cap:
            plan.capped += 1
            continue
        if way is not None and way.may_refuse:
            try:
                way.records(letter, "")
            except RejectedError as error:
                plan.refuse(letter, error)
                continue
        plan.add(letter)
    if matches is not None:
        plan.unjudged, plan.first_unjudged = matches.unjudged, matches.first_unjudged
    if plan.refused and order.edit is not None:
        raise ConfigurationError(
            f"{plan.refused} of the letters can't be edited so: " + "; ".join(plan.refusals),
            where=topic,
            hint="nothing was sent; choose letters with --filter, or mend the edit",
            code="edit.refused",
        )
    plan.settle(None if order.limit is None else order.limit - sent)
    return plan


def _letters(settings: KafkaSettings, topic: str, order: RedriveOrder) -> Iterator[DeadLetter]:
    """The letters in the scope of an order, as they stand in the topic."""
    places = {
        (int(partition), int(offset)) for partition, _, offset in (place.partition("@") for place in order.places)
    }
    numbers = sorted({partition for partition, _ in places}) if places else sorted(map(int, order.ends))

    def start(_reader: Consumer, number: int) -> int:
        return min((offset for partition, offset in places if partition == number), default=0)

    for message in read_all(settings, topic, partitions=numbers, start=start):
        place = (message.partition() or 0, offset_of(message))
        if place[1] < order.ends.get(str(place[0]), 0) and (not places or place in places):
            yield DeadLetter.from_message(message)


class LetterReader:
    """Fetches planned letters again: reads on where the next one is near, else seeks."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._topic = topic
        self._reader = settings.reader()
        self._fetched: list[Message] = []
        self._partition, self._next = -1, 0

    def fetch(self, partition: int, offsets: Sequence[int]) -> list[DeadLetter]:
        """The letters at these offsets, in this order. Raises `RetriableError` when one does not come."""
        found = {offset: self._at(partition, offset) for offset in sorted(offsets)}
        return [found[offset] for offset in offsets]

    def close(self) -> None:
        """Ends the reader."""
        self._reader.close()

    def _at(self, partition: int, offset: int) -> DeadLetter:
        if partition != self._partition or not self._next <= offset <= self._next + NEAR:
            self._reader.assign([TopicPartition(self._topic, partition, offset)])
            self._partition, self._fetched = partition, []
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            while self._fetched:
                message = self._fetched.pop()
                self._next = offset_of(message) + 1
                if offset_of(message) == offset and message.partition() == partition:
                    return DeadLetter.from_message(message)
            messages = [one for one in self._reader.consume(500, 0.2) if one.error() is None]
            self._fetched = messages[::-1]
        raise RetriableError(
            f"{self._topic}[{partition}] did not give the letter at {offset}", code="kafka.unavailable"
        )
