"""What a pipeline's runtime said last. It is said on until there is something newer, also while none runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from trunkline.bus.accounting.pace import Pace
from trunkline.bus.intake import Partition
from trunkline.bus.knownoffsets import KnownOffsets
from trunkline.bus.runtime import Runtime, RuntimeReport
from trunkline.bus.worker.reported import ReportedOffsets


class Said:
    """On the event loop. `known` is brought up to what is said of offsets."""

    def __init__(self, known: KnownOffsets) -> None:
        self._known = known
        self._pace = Pace()
        self._seen = RuntimeReport()
        self._fallback = 0
        """Records that the fallbacks of earlier runs took."""
        self._runs = False
        self.holding = False
        """Whether a runtime has partitions now."""
        # What was reported last is reported on until there is something newer: it is the second copy of the offsets.
        self._places: Collection[Partition] = list(known.copy)

    def look(self, runtime: Runtime | None) -> RuntimeReport:
        """What the runtime says now; of its counts and offsets, while there is none, what was said last."""
        seen = self._seen
        self.holding = False
        self._runs = runtime is not None
        if runtime is None:
            self._seen = RuntimeReport(seen.counts, seen.open, seen.positions, finished=seen.finished)
            return self._seen
        found = runtime.report()
        self.holding = bool(found.positions)
        if found.positions and found.positions != seen.positions:
            self._places = list(found.positions)
            self._known.advance(found.positions)
        if found.counts:
            self._pace.note(found.counts.get("read", 0))
        else:
            found = replace(found, counts=seen.counts, open=seen.open)
        self._seen = found if found.positions else replace(found, positions=seen.positions)
        return self._seen

    def ends(self, runtime: Runtime) -> None:
        """A runtime is over: what it counted for itself alone is kept."""
        self._fallback += self.look(runtime).fallback
        self._seen = replace(self._seen, fallback=0)

    @property
    def counts(self) -> dict[str, int]:
        """Records by what became of them, as of the last look."""
        fallback = self._fallback + self._seen.fallback
        return {**self._seen.counts, **({"fallback": fallback} if fallback else {})}

    @property
    def per_second(self) -> float:
        """Records settled a second, of late."""
        return round(self._pace.per_second, 1)

    @property
    def offsets(self) -> ReportedOffsets:
        """How far it is known to have come with the partitions that it has.

        Without a runtime of all that it ever had, so that nothing of it is missing in the second copy.
        """
        return ReportedOffsets.of(self._known, self._places if self._runs else self._known.copy)
