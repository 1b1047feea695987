"""What pipelines would read first and what they leave, as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.bus.worker.firstreads import FirstRead
    from trunkline.bus.worker.remains import Remains


def reading_lines(reads: Iterable[FirstRead]) -> Iterator[str]:
    """What each pipeline reads first of each topic."""
    from trunkline.bus.worker.firstreads import Begins

    for one in reads:
        records = counted(one.records, "record", exact=one.exact)
        yield (
            f"{one.pipeline}: "
            + {
                Begins.EARLIEST: f"reads {records} of {one.topic} first (start: earliest)",
                Begins.LATEST: f"reads what comes to {one.topic} from now on (start: latest)",
                Begins.TIME: f"reads {records} of {one.topic} first (start: {one.since})",
                Begins.COMMITTED: f"goes on in {one.topic} where it stood when it was deleted: {records} wait there",
                Begins.STOPS: f"will stop: what it had read of {one.topic} is not known any more, or the topic was made anew",
            }[one.begins]
        )


def leaving_lines(leaves: Iterable[Remains]) -> Iterator[str]:
    """What each pipeline leaves, and what becomes of it."""
    for one in leaves:
        parts = []
        if one.dead:
            settled = {"sent again": one.redriven, "dropped": one.dropped}
            told = ", ".join(f"{number} of them {fate}" for fate, number in settled.items() if number)
            parts.append(counted(one.dead, "dead letter", exact=one.exact) + (f" ({told})" if told else ""))
        if one.parked:
            parts.append(counted(one.parked, "parked record"))
        if one.retry:
            parts.append(f"{counted(one.retry, 'record', exact=one.exact)} sent again that it has not read")
        if one.partitions:
            parts.append(f"the offsets of {counted(one.partitions, 'partition')}")
        if one.splits:
            parts.append(f"the positions of {counted(one.splits, 'split')}")
        yield f"{one.pipeline}: leaves {', '.join(parts)}" if parts else f"{one.pipeline}: leaves nothing"


def counted(number: int, noun: str, *, exact: bool = True) -> str:
    """A number of things: `1 record`, `about 1,200 records`."""
    text = f"{number:,} {noun}" + ("" if number == 1 else "s")
    return text if exact else f"about {text}"
