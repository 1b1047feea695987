"""What an entry of the audit trail says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

LONGEST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision: `action` is noun and verb (`parked.drop`, `redrive.start`), `at` is Unix seconds.

    `subject` is what was decided about where that is no pipeline (`Topic/orders`). Entries of one command share its id.
    """

    at: float
    who: str
    action: str
    pipeline: str
    details: dict[str, Any] = field(default_factory=dict)
    subject: str = ""
    command: str = ""

    @property
    def key(self) -> bytes:
        """The key of its record."""
        return (self.pipeline or self.subject).encode("utf-8", "backslashreplace")

    def as_dict(self) -> dict[str, Any]:
        """The entry as data."""
        return asdict(self)


def brief(value: object) -> str:
    """A value as a line of text for people; one that is not there is `unset`."""
    text = "unset" if value is None else str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
