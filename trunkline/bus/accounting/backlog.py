"""What waits behind an offset: how many records, and since when the first of them.

Offsets don't count records: markers of transactions, aborted records and compaction leave gaps. So what is little is read and
counted, once: what is known of a partition is kept by the offset from which on it was read, and only what came since is read
on. Of what is much the first record alone is read, and the rest is estimated.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, Message, TopicPartition

from trunkline.bus.kafka import KafkaSettings, closing, offset_of
from trunkline.bus.kafka.cluster import Place

COUNTED_OFFSETS = 10_000
"""So many offsets of a partition are read to count the records among them; of more than that the number is estimated."""
COUNTED_RECORDS = 200_000
"""How many records one look reads at the most, all partitions together: about half a second of CPU time."""
READ_SECONDS = 3.0
FETCH_BYTES = 64 * 1024
IDLE_FETCH_MS = 5
"""How long a fetch at the end of a partition waits before the client says that it is the end."""
KEPT_SECONDS = 600.0
"""What was counted longer ago is counted anew: compaction and retention may have removed records since."""
LEAST_SPAN = 100
"""So many offsets must have been read before their density says something of others."""

Behind = tuple[str, int, int]
"""Topic, partition, and the first offset that is not committed."""


@dataclass(slots=True)
class Backlog:
    """What is known of the records from an offset on: `count` of them lie before `reached`.

    `since` is the timestamp of the first one in Unix seconds, None as long as none was found; 0 where it has none.
    """

    first: int
    reached: int
    count: int = 0
    since: float | None = None
    at: float = field(default_factory=time.monotonic)

    def complete(self, end: int) -> bool:
        """Whether everything before `end` was read."""
        return self.reached >= end

    def estimate(self, end: int, density: float | None) -> int:
        """How many records lie before `end`, by the records an offset elsewhere in the partition where that is known."""
        span = self.reached - self.first
        if density is None:
            density = self.count / span if span >= LEAST_SPAN else 1.0
        return max(1, self.count + round((end - max(self.first, self.reached)) * density))


@dataclass(slots=True)
class _Pass:
    """One reading of a partition, from `first` to before `end`, or to the first record alone."""

    first: int
    end: int
    only_first: bool
    reached: int = field(init=False)
    offsets: array[int] = field(default_factory=lambda: array("q"))
    stamps: array[int] = field(default_factory=lambda: array("q"))

    def __post_init__(self) -> None:
        self.reached = self.first

    @property
    def done(self) -> bool:
        return self.reached >= self.end or (self.only_first and bool(self.offsets))

    def take(self, message: Message) -> None:
        offset = offset_of(message)
        if offset < self.reached or offset >= self.end:
            self.reached = max(self.reached, min(offset, self.end))
            return
        kind, stamp = message.timestamp()
        self.offsets.append(offset)
        self.stamps.append(
            0 if kind == TIMESTAMP_NOT_AVAILABLE else max(0, stamp)
        )  # one before 1970 says nothing either
        self.reached = offset + 1

    def tell(self, backlog: Backlog) -> None:
        """Adds what was read to what is known of the records from one offset on."""
        begin = bisect_left(self.offsets, backlog.reached)
        backlog.count += len(self.offsets) - begin
        if backlog.since is None and begin < len(self.offsets):
            backlog.since = self.stamps[begin] / 1000
        backlog.reached = max(backlog.reached, self.reached)


class Backlogs:
    """Reads what waits behind offsets, and remembers it. Belongs to one thread."""

    def __init__(self, settings: KafkaSettings, seconds: float = READ_SECONDS) -> None:
        self._settings = settings
        self._seconds = seconds
        self._known: dict[Behind, Backlog] = {}

    def look(self, ends: Mapping[Behind, int]) -> Mapping[Behind, Backlog]:
        """What is known of the records before these ends now. What time does not allow is read the next time."""
        now = time.monotonic()
        kept = {}
        for place, end in ends.items():
            known = self._known.get(place)
            if known is None or known.reached > end or now - known.at > KEPT_SECONDS:
                known = Backlog(place[2], place[2])
            kept[place] = known
        self._known = kept
        wanted = {place for place, end in ends.items() if self._is_wanted(place, end)}
        if wanted:
            self._read({place: ends[place] for place in wanted}, now + self._seconds)
        return kept

    def _is_wanted(self, place: Behind, end: int) -> bool:
        known = self._known[place]
        return not known.complete(end) and (end - known.first <= COUNTED_OFFSETS or not known.count)

    def _read(self, ends: Mapping[Behind, int], deadline: float) -> None:
        budget = COUNTED_RECORDS
        with closing(self._settings.reader(eof=True, fetch_bytes=FETCH_BYTES, idle_fetch_ms=IDLE_FETCH_MS)) as reader:
            for passes in self._rounds(ends):
                budget -= _read_at_once(reader, passes, deadline, budget)
                for behind in ends:
                    done, known = passes.get(behind[:2]), self._known[behind]
                    if done is not None and done.first <= known.reached:
                        done.tell(known)
                if time.monotonic() > deadline or budget <= 0:
                    return

    def _rounds(self, ends: Mapping[Behind, int]) -> Iterator[dict[Place, _Pass]]:
        """What is read at once, a range of each partition: first all that is counted, whoever asks for it, then first records.

        Each round is made when the one before was read: a first record may have been found by the way.
        """
        counted: dict[Place, _Pass] = {}
        alone: dict[Place, list[Behind]] = {}
        for behind, end in sorted(ends.items()):
            place, known = behind[:2], self._known[behind]
            if end - known.first > COUNTED_OFFSETS:
                alone.setdefault(place, []).append(behind)
            elif place not in counted or known.reached < counted[place].first:
                counted[place] = _Pass(known.reached, end, only_first=False)
        if counted:
            yield counted
        for number in range(max(map(len, alone.values()), default=0)):
            passes = {}
            for place, asked in alone.items():
                if number < len(asked) and not self._known[asked[number]].count:
                    passes[place] = _Pass(self._known[asked[number]].reached, ends[asked[number]], only_first=True)
            if passes:
                yield passes


def _read_at_once(reader: Consumer, passes: Mapping[Place, _Pass], deadline: float, budget: int) -> int:
    """Reads a range of each partition, all of them side by side. Returns how many records that were."""
    reader.assign([TopicPartition(*place, reading.first) for place, reading in passes.items()])
    left, count = set(passes), 0
    while left and time.monotonic() < deadline and count < budget:
        ended: set[Place] = set()
        for message in [*reader.consume(1, 0.1), *reader.consume(1000, 0)]:
            place = (message.topic() or "", message.partition() or 0)
            if place not in left or place in ended:
                continue
            reading, error = passes[place], message.error()
            if error is None:
                reading.take(message)
                count += 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                # Markers and aborted records are offsets too: the end may come without a record before it.
                reading.reached = max(reading.reached, min(offset_of(message), reading.end))
            else:
                ended.add(place)  # it expired or went away meanwhile: the next look will tell
            if reading.done:
                ended.add(place)
        left -= ended
        if early := [place for place in ended if passes[place].only_first]:
            reader.pause([TopicPartition(*place) for place in early])  # much lies behind the record that was wanted
    reader.resume([TopicPartition(*place) for place in passes])  # a pause outlives an assignment
    return count
