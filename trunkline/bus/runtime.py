"""What every runtime is to its host: a source, a push source, a stream and a sink are run, stopped, paused and asked alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trunkline.bus.intake import Partition
from trunkline.bus.ledger import OUTCOMES, Ledger, total
from trunkline.core.cause import Cause


@dataclass(frozen=True, slots=True)
class SplitProgress:
    """How far a split of a source has come: `done` of `total`, `what` they are of; `seconds_left` is None where nobody can tell."""

    done: float
    total: float
    what: str
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """How a runtime stands on this worker, whatever its kind: what a kind does not have is empty."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Records by what became of them: `read`, the outcomes, `outputs`. Empty as long as nothing is known."""
    open: int = 0
    """Records read that the ledgers can't account for."""
    positions: Mapping[Partition, int] = field(default_factory=dict)
    """The committed offset of each partition that is ours."""
    ready: bool = True
    """Whether it does its work, or would if there were any."""
    finished: bool = False
    """Whether a source has come to its end."""
    progress: Sequence[SplitProgress] = ()
    parked_records: int = 0
    parked_keys: int = 0
    fallback: int = 0
    """Records of this run that a sink's fallback took."""
    breaker: str = ""
    """How the breaker of a sink's account stands; empty where there is none."""
    cause: Cause | None = None


class Runtime(Protocol):
    """One pipeline on one worker. All but `run` may be called at any time, also before it, and return at once."""

    async def run(self) -> None:
        """Works until `stop`; its plug-in is open. Raises `TrunklineError` when the pipeline can't go on."""

    def stop(self) -> None:
        """Asks `run` to end what is under way and return."""

    def pause(self) -> None:
        """Begins nothing more; what is the pipeline's stays its own."""

    def resume(self) -> None:
        """Goes on."""

    def check_topics(self) -> None:
        """An input seems to be gone, or made anew: `run` looks, and raises where it is so."""

    def report(self) -> RuntimeReport:
        """How it stands now. On the event loop."""


class LedgerCounts:
    """The sum of a runtime's ledgers. Nothing is added up where no offset has moved since the last look."""

    def __init__(
        self, positions: Callable[[], Mapping[Partition, int]], ledgers: Callable[[], Mapping[Partition, Ledger]]
    ):
        self._positions = positions
        self._ledgers = ledgers
        self._seen: Mapping[Partition, int] = {}
        self._counts: Mapping[str, int] = {}
        self._open = 0

    def look(self) -> tuple[Mapping[Partition, int], Mapping[str, int], int]:
        """Positions, counts by outcome, and how many records are open; all empty as long as no partition is ours."""
        positions = self._positions()
        if positions and positions != self._seen:
            summed = total(self._ledgers().values())
            self._seen = positions
            self._counts = {name: getattr(summed, name) for name in ("read", *OUTCOMES, "outputs")}
            self._open = summed.open
        return positions, self._counts, self._open
