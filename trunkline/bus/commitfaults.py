"""What can be wrong with where a pipeline stands in a partition, and how a person is told: the one place that words it.

A commit is good only for the topic that it was made in. Kafka deletes the commits of a topic with the topic, forgets those of a
group that is idle for long, and deletes records by age; none of that may choose another beginning by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from trunkline.bus.kafka.cluster import Place
from trunkline.core.errors import HaltError

Kind = Literal["made_anew", "missing", "expired", "beyond"]
SHOWN = 5
"""Of so many partitions each is told of by itself; of the others together."""
LONGEST_LIST = 300
_CODES: dict[Kind, str] = {
    "made_anew": "topic.made_anew",
    "missing": "offsets.missing",
    "expired": "offsets.out_of_range",
    "beyond": "offsets.out_of_range",
}
_ORDER: Sequence[Kind] = ("made_anew", "missing", "expired", "beyond")


@dataclass(frozen=True, slots=True)
class CommitFault:
    """One partition in which a pipeline can't go on.

    * `made_anew`: the topic that was read up to `offset` had the id `old_id`; the one of this name has `topic_id`.
    * `missing`: the commit is gone, and was `offset` as workers reported.
    * `expired`: the records from `offset` to before `first` were deleted unread.
    * `beyond`: the partition ends at `end`, before `offset`: Kafka lost records that had been read.

    `first` and `end` are those of the partition now, None where they are not known.
    """

    kind: Kind
    place: Place
    offset: int
    old_id: str = ""
    topic_id: str = ""
    first: int | None = None
    end: int | None = None

    @property
    def lost(self) -> int:
        """How many offsets were deleted unread. Markers of transactions are among them, so that there may be fewer records."""
        return max(0, self.first - self.offset) if self.kind == "expired" and self.first is not None else 0

    @property
    def text(self) -> str:
        """What is wrong, with its place."""
        name = f"{self.place[0]}[{self.place[1]}]"
        if self.kind == "made_anew":
            there = (
                "" if self.first is None else f", and the new one had the offsets {self.first} to {self.end} by then"
            )
            return f"{name} was read up to {self.offset}{there}"
        if self.kind == "missing":
            return f"the committed offset of {name} is gone; it was {self.offset}"
        if self.kind == "expired":
            return (
                f"{name} is committed up to {self.offset} and its first record is at {self.first} now:"
                f" {self.lost} were deleted before they were read"
            )
        return f"{name} is committed up to {self.offset}, and ends at {self.end}: Kafka has lost records that were read"


def error_of(pipeline: str, retry: str, faults: Iterable[CommitFault]) -> HaltError:
    """The error for faults of a pipeline whose retry topic is `retry`: what is wrong, and commands that mend just that.

    It is not tried again by itself: each way on is a choice between reading again and passing over.
    """
    found = sorted(faults, key=lambda one: (_ORDER.index(one.kind), one.place))
    assert found
    reasons, hints = [], []
    for kind in _ORDER:
        mine = [one for one in found if one.kind == kind]
        if mine:
            reasons.append(_reason(mine))
            hints.append(_hint(pipeline, retry, mine))
    return HaltError("; ".join(reasons), hint="; ".join(hints), code=_CODES[found[0].kind])


def _reason(faults: Sequence[CommitFault]) -> str:
    if faults[0].kind != "made_anew":
        return _listed(faults)
    told = []
    for topic in dict.fromkeys(one.place[0] for one in faults):
        mine = [one for one in faults if one.place[0] == topic]
        told.append(
            f"the topic {topic} was deleted and made anew (its id was {mine[0].old_id}, it is {mine[0].topic_id} now): {_listed(mine)}"
        )
    return "; ".join(told)


def _listed(faults: Sequence[CommitFault]) -> str:
    rest = faults[SHOWN:]
    more = f"; and in {len(rest)} more partitions ({_numbers(rest)})" if rest else ""
    if rest and rest[0].kind == "expired":
        more += f" {sum(one.lost for one in rest)} were deleted as well, {sum(one.lost for one in faults)} in all"
    return "; ".join(one.text for one in faults[:SHOWN]) + more


def _numbers(faults: Sequence[CommitFault]) -> str:
    """The partitions, those in a row as one range: `orders[5-7, 9]`."""
    told = []
    for topic in dict.fromkeys(one.place[0] for one in faults):
        runs: list[list[int]] = []
        for number in sorted(one.place[1] for one in faults if one.place[0] == topic):
            if runs and runs[-1][-1] == number - 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        told.append(f"{topic}[{', '.join(f'{run[0]}-{run[-1]}' if len(run) > 1 else str(run[0]) for run in runs)}]")
    text = ", ".join(told)
    return text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST]}…"


def _hint(pipeline: str, retry: str, faults: Sequence[CommitFault]) -> str:
    kind = faults[0].kind
    topics = list(dict.fromkeys(one.place[0] for one in faults))
    # What a redrive sent is left alone unless it is named.
    named = "".join(f" --topic {topic}" for topic in topics) if kind == "made_anew" or retry in topics else ""
    command = f"`trunkline offsets set {pipeline} --to"
    if kind == "made_anew":
        return (
            f"choose: {command} earliest{named}` reads the new topic from its beginning, {command} latest{named}` only what comes"
            f" from then on; where it is a copy with the same offsets (a mirrored cluster), `trunkline offsets adopt {pipeline}{named}`"
            " goes on from the old ones"
        )
    if kind == "missing":
        return f"Kafka forgets the commits of a group that is idle for long: {command} saved{named}` goes on where workers last were"
    if kind == "expired":
        return f"{command} after-gap{named}` goes on after what was deleted, and moves no other partition"
    places = "".join(f" --partition {one.place[1]}" for one in faults) if len(topics) == 1 else ""
    return f"{command} latest --topic {topics[0]}{places}` goes on at its end, and `--to earliest` reads what is left once more"
