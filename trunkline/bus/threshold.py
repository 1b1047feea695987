"""The dead-letter threshold: a wrong deploy must not drain a topic into its dead letters."""

from __future__ import annotations

from collections import deque

from trunkline.core.errors import HaltError
from trunkline.core.manifests.models import DeadLetterSpec


class DeadLetterThreshold:
    """Counts the dead letters among the last `of` records of a pipeline on this worker. Not thread-safe."""

    def __init__(self, spec: DeadLetterSpec, pipeline: str) -> None:
        self._spec = spec
        self._pipeline = pipeline
        self.forget()

    def forget(self) -> None:
        """Begins anew: what was counted did not happen."""
        self._runs: deque[tuple[int, bool]] = deque()
        """How many records one after the other ended alike, and whether as dead letters; oldest first."""
        self._records = self._dead = 0

    def ended(self, records: int) -> None:
        """So many more records ended, none as a dead letter."""
        if records:
            self._add(records, dead=False)

    def died(self) -> HaltError | None:
        """One more record ended as a dead letter. What stops the pipeline where that is one too many."""
        if self._spec.stop_above is None:
            return None
        self._add(1, dead=True)
        # I26: after too many dead letters nothing more is read until a person has looked.
        if self._dead <= self._spec.stop_above:
            return None
        return HaltError(
            f"{self._dead} of the last {self._records} records became dead letters, more than "
            f"{self._spec.stop_above}; what was saved stays saved, nothing after it is read",
            hint=f"see `trunkline dlq show {self._pipeline}`, mend the cause (or raise spec.dead_letters.stop_above), "
            f"then `trunkline restart {self._pipeline}`",
            code="deadletters.threshold",
        )

    def _add(self, records: int, *, dead: bool) -> None:
        alike = self._runs.pop()[0] if self._runs and self._runs[-1][1] == dead else 0
        self._runs.append((alike + records, dead))
        self._records += records
        self._dead += records * dead
        while self._records > self._spec.of:
            oldest, were_dead = self._runs.popleft()
            gone = min(oldest, self._records - self._spec.of)
            if gone < oldest:
                self._runs.appendleft((oldest - gone, were_dead))
            self._records -= gone
            self._dead -= gone * were_dead
