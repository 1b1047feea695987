"""What every runtime is to its host: a source, a push source, a stream and a sink are run, stopped, paused and asked alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from trunkline.bus.intake import Partition
from trunkline.bus.ledger import OUTCOMES, Ledger, total
from trunkline.core.cause import Cause


@dataclass(frozen=True, slots=True)
class SplitProgress:
    """How far a split of a source has come: `done` of `total`, `what` they are of; `seconds_left` is None where nobody can tell."""

    split: str
    done: float
    total: float
    what: str
    seconds_left: float | None

    @property
    def share(self) -> float:
        """What is done of all, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 1.0


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """How a runtime stands on this worker, whatever its kind: what a kind does not have is empty."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Records by what became of them: `read`, the outcomes, `outputs`. Empty as long as nothing is known."""
    open: int = 0
    """Records read that the ledgers can't account for."""
    positions: Mapping[Partition, int] = field(default_factory=dict)
    """The committed offset of each partition that is ours."""
    ledgers: Mapping[Partition, Ledger] = field(default_factory=dict)
    """The ledgers of these partitions."""
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
    untried: bool = False
    """Whether the first call of this run, or its first poll, is still under way: until it ends nobody knows whether more go."""


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


@dataclass(frozen=True, slots=True)
class Summed:
    """Positions and ledgers of the partitions that are ours, and what all ledgers say together; empty as long as none is ours."""

    positions: Mapping[Partition, int] = field(default_factory=dict)
    ledgers: Mapping[Partition, Ledger] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    open: int = 0


class LedgerCounts:
    """The sum of a runtime's ledgers. Nothing is added up where nothing has changed since the last look: neither the positions, nor
    `releases`, the number of records that have another class than the one they were passed with."""

    def __init__(
        self,
        positions: Callable[[], Mapping[Partition, int]],
        ledgers: Callable[[], Mapping[Partition, Ledger]],
        releases: Callable[[], int] = lambda: 0,
    ) -> None:
        self._positions = positions
        self._ledgers = ledgers
        self._releases = releases
        self._seen: tuple[Mapping[Partition, int], int] = ({}, 0)
        self._known = Summed()

    def look(self) -> Summed:
        """How it is now. Counts and what is open are kept while no partition is ours."""
        seen = positions, _ = self._positions(), self._releases()
        if not positions:
            return replace(self._known, positions={}, ledgers={})
        if seen != self._seen:
            ledgers = self._ledgers()
            summed = total(ledgers.values())
            counts = {name: getattr(summed, name) for name in ("read", *OUTCOMES, "outputs")}
            self._seen, self._known = seen, Summed(positions, ledgers, counts, summed.open)
        return self._known
