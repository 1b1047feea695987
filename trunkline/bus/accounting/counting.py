"""Counting the records between two offsets: markers of transactions, aborted records and compaction leave gaps in the offsets."""

from __future__ import annotations

from confluent_kafka import Consumer

from trunkline.bus.intake import Partition
from trunkline.bus.kafka import read_range

MOST = 200_000
"""Offsets of one range that are read to count its records; of more the offsets are the answer."""


def count_between(reader: Consumer, place: Partition, first: int, end: int) -> tuple[int, bool]:
    """How many committed records lie from `first` to before `end`, and whether that is exact. The reader tells of ends (`eof=True`).

    Raises as `read_range`.
    """
    if end <= first:
        return 0, True
    if end - first > MOST:
        return end - first, False
    return sum(1 for _ in read_range(reader, *place, first, end)), True
