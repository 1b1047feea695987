"""The watch over secrets: whether what the pipelines of a worker were opened with is still what the stores hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trunkline.core.secret import marks_of

WATCH_SECONDS = 2.0


class SecretWatch:
    """Blocks; belongs in one thread at a time."""

    def __init__(self) -> None:
        self._last: Mapping[str, str] = {}

    def look(self, references: Iterable[str]) -> dict[str, str]:
        """The marks of those that hold the same as at the last look: a file that is being written may hold half of a value."""
        last, self._last = self._last, marks_of(references)
        return {reference: mark for reference, mark in self._last.items() if last.get(reference) == mark}
