"""The dead-letter threshold: a wrong deploy must not drain a topic into its dead letters."""

from __future__ import annotations

from collections import deque

from trunkline.core.errors import HaltError
from trunkline.core.manifests.models import DeadLetterSpec


class DeadLetterThreshold:
    """Counts the dead letters among the last `of` records of a pipeline on this worker, in the portions they are told in."""

    def __init__(self, spec: DeadLetterSpec, pipeline: str) -> None:
        self._spec = spec
        self._pipeline = pipeline
        self._portions: deque[tuple[int, int]] = deque()
        """Records and the dead letters among them, oldest first."""
        self._records = 0

    def note(self, records: int, dead: int) -> None:
        """So many more records ended, so many of them as dead letters. Raises `HaltError` when there are too many of those."""
        if self._spec.stop_above is None or not records:
            return
        self._portions.append((records, dead))
        self._records += records
        while self._records - self._portions[0][0] >= self._spec.of:
            self._records -= self._portions.popleft()[0]
        # I26: after too many dead letters nothing more is read until a person has looked.
        if dead and (found := self._among_the_last()) > self._spec.stop_above:
            raise HaltError(
                f"{found} of the last {min(self._records, self._spec.of)} records became dead letters, more than "
                f"{self._spec.stop_above}; what was saved stays saved, nothing after it is read",
                hint=f"see `trunkline dlq show {self._pipeline}`, mend the cause (or raise spec.dead_letters.stop_above), "
                f"then `trunkline restart {self._pipeline}`",
                code="deadletters.threshold",
            )

    def _among_the_last(self) -> int:
        """Dead letters in the window; of the oldest portion, which may lie in it with a part only, its share."""
        records, dead = self._portions[0]
        outside = max(0, self._records - self._spec.of)
        return sum(one for _, one in self._portions) - dead * outside // records
