"""How many dead letters wait: counted in their topic, since what ledgers say of them holds only where nothing was broken off.

A sink saves a letter before it commits the record. Killed in between it reads the record again, and the letter is one of a record that
died twice, or did not die this time; and whoever sent it again in between sent one that no ledger counts. Offsets that were set back,
and topics that were made anew, leave letters that no ledger counts either.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trunkline.bus.accounting.commits import Commits
from trunkline.bus.accounting.outcomes import Waiting
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, offset_of_each
from trunkline.bus.names import Names
from trunkline.bus.redrive.transactions import Redrive
from trunkline.bus.topics import topic_identities
from trunkline.core.errors import TrunklineError

COUNTED = 20_000
"""So many offsets of dead-letter topics and of marks are read at the most, of all pipelines together."""
SECONDS = 3.0
"""No count begins later than this."""
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Died:
    """What ledgers say of a pipeline: how many records became dead letters, and how many of those were `settled`: sent again or dropped.

    `whole` says that the ledgers know of all that ever were, `atomic` that letters and commits are one transaction, as of a stream or a
    source.
    """

    letters: int
    settled: int
    whole: bool
    atomic: bool
    commits: Commits


def waiting_letters(
    settings: KafkaSettings, names: Names, pipelines: Mapping[str, Died], most: int = COUNTED
) -> dict[str, Waiting]:
    """The dead letters of pipelines that wait. Who has too many, or could not be asked in time, is left out.

    Where the ledgers can't be wrong, since their topic has as many letters as they say, nothing is read.
    """
    sizes = _sizes(settings, [names.dead_letters(name) for name in pipelines] + [names.redriven])
    marks = sizes.get(names.redriven, 0)
    found: dict[str, Waiting] = {}
    asked: list[str] = []
    for size, name in sorted((sizes.get(names.dead_letters(name), 0), name) for name in pipelines):
        died = pipelines[name]
        if not size:
            found[name] = Waiting()
        elif died.whole and died.letters >= died.settled and (died.atomic or size == died.letters):
            found[name] = Waiting(died.letters - died.settled)
        elif size + marks <= most:
            most -= size + marks
            asked.append(name)
    deadline = time.monotonic() + SECONDS

    def count(name: str) -> Waiting | None:
        if time.monotonic() > deadline:
            return None
        try:
            return count_waiting(settings, names, name, pipelines[name].commits)
        except TrunklineError:
            return None

    if asked:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="letters") as pool:
            counted = zip(asked, pool.map(count, asked), strict=True)
            found.update({name: waiting for name, waiting in counted if waiting is not None})
    return found


def count_waiting(settings: KafkaSettings, names: Names, pipeline: str, commits: Commits) -> Waiting:
    """Counts the letters of one pipeline, however many there are. Raises our error for Kafka's."""
    settled = ahead = 0
    for letter in Redrive(settings, names, pipeline).still_waiting():
        topic, partition, offset = letter.origin
        commit = commits.get((topic, partition))
        if commit is not None and offset >= commit[0]:
            ahead += 1
        else:
            settled += 1
    return Waiting(settled, ahead)


def _sizes(settings: KafkaSettings, topics: Iterable[str]) -> dict[str, int]:
    """How many offsets each topic has; 0 of one that does not exist."""
    there = topic_identities(settings, topics)
    places = [(topic, number) for topic, one in there.items() for number in range(one.partitions)]
    ends, _ = offset_of_each(settings, places, LATEST)
    starts, _ = offset_of_each(settings, [place for place, end in ends.items() if end], EARLIEST)
    sizes = dict.fromkeys(there, 0)
    for place, end in ends.items():
        sizes[place[0]] += end - starts.get(place, 0)
    return sizes
