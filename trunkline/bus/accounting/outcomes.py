"""What became of the records of a pipeline, as a person counts: each record that was read is in one class, the last that it reached.

A ledger counts a record as dead for ever. A person does not count it so any more once it was sent again: then it is on its way,
and after that delivered, filtered, or dead once more. Sent again means read from the retry topic, which has a ledger of its own. Nor
does he once somebody has dropped its letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trunkline.bus.ledger import Ledger, total

CLASSES = ("delivered", "absorbed", "filtered", "parked", "dead", "dropped", "redriving", "open")
"""What was read is the sum of these, but for what is `carried`."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Dead letters that were neither sent again nor dropped: `letters` of committed records, and `ahead` of records behind the commit,
    which will be read again after a crash."""

    letters: int = 0
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Counts since the pipeline's ledgers began. `read` counts input records, those that were sent again once.

    `parked` and `dead` are those that wait now, `redriving` were sent again and are not read yet, `open` were read and have no class;
    `dead` is worked out and not counted where it is not `exact`. `outputs` counts records written. `ahead` letters wait of records
    that are not committed yet: they are not read, by this count.
    """

    read: int = 0
    delivered: int = 0
    absorbed: int = 0
    filtered: int = 0
    parked: int = 0
    dead: int = 0
    dropped: int = 0
    redriving: int = 0
    open: int = 0
    outputs: int = 0
    ahead: int = 0
    exact: bool = True

    @property
    def carried(self) -> int:
        """How many more have a class than were read: letters of records that were read before the counts began anew, and records that
        were sent again before they were committed, and then read again. Below 0: so many dead letters are gone from their topic."""
        return sum(int(getattr(self, name)) for name in CLASSES) - self.read

    def as_dict(self) -> dict[str, Any]:
        """The counts as data."""
        return {**asdict(self), "carried": self.carried}


def of_reader(
    first: Iterable[Ledger], again: Iterable[Ledger], redriving: int, dropped: int, waiting: Waiting | None
) -> Outcomes:
    """Of a pipeline with these ledgers of its inputs and of its retry topic, in which so many records are still to be read.

    `dropped` are the letters that were dropped. `waiting` is None where the letters were not counted: then they are those that died and
    were neither sent again nor dropped.
    """
    once, more = total(first), total(again)
    dead = once.dead + more.dead - more.read - redriving - dropped
    return Outcomes(
        read=once.read,
        delivered=once.delivered + more.delivered,
        absorbed=once.absorbed + more.absorbed,
        filtered=once.filtered + more.filtered,
        parked=once.parked + more.parked,
        dead=waiting.letters if waiting is not None else max(0, dead),
        dropped=once.dropped + more.dropped + dropped,
        redriving=redriving,
        open=once.open + more.open,
        outputs=once.outputs + more.outputs,
        ahead=waiting.ahead if waiting is not None else 0,
        exact=waiting is not None,
    )


def of_source(counts: Mapping[str, int], sent: int, dropped: int, waiting: Waiting | None) -> Outcomes:
    """Of a source: of what it has in quarantine, `sent` were sent again, straight to its topics, and `dropped` were dropped."""
    read, delivered, filtered, dead = (counts.get(name, 0) for name in ("read", "delivered", "filtered", "dead"))
    left = waiting.letters if waiting is not None else max(0, dead - sent - dropped)
    return Outcomes(
        read=read,
        delivered=delivered + min(sent, max(0, dead - left - dropped)),
        filtered=filtered,
        dead=left,
        dropped=dropped,
        open=read - delivered - filtered - dead,
        outputs=counts.get("outputs", 0),
        exact=waiting is not None,
    )
