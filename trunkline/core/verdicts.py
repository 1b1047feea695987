"""Verdicts: what a sink says of one record it was given. Exactly one for each record, in the order of the records.

A reason often repeats what another system answered, and so may hold a secret of ours. Secrets are blanked as a verdict is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trunkline.core.errors import RetriableError
from trunkline.core.redaction import redact


@dataclass(frozen=True, slots=True)
class Ok:
    """The record took effect; `reference` is what the other system calls it (an id, a URL, a file and row)."""

    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The record had no effect, and the same call may succeed later: after `after` seconds, where the other side said so.

    `code` is stable and dotted, and tells people why a pipeline waits. `limit` is which limit of the account is used up, as the
    account calls it, where that is the reason.
    """

    reason: str
    after: float | None = None
    # For people: two verdicts that mean the same for the record are equal.
    code: str = field(default="sink.retry", compare=False)
    limit: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", redact(self.reason))

    @classmethod
    def of(cls, error: RetriableError) -> Retry:
        """What an error means that left no effect."""
        return cls(str(error), error.after, error.code, error.limit)


@dataclass(frozen=True, slots=True)
class Dead:
    """The record is bad and no retry mends it. It becomes a dead letter with this reason.

    `access` marks a refusal that may be ours and not the record's (403, 404): when several records of different keys in a row
    are refused so, the engine stops the pipeline instead of emptying a topic into its dead letters.
    """

    reason: str
    code: str = "sink.rejected"
    access: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", redact(self.reason))


@dataclass(frozen=True, slots=True)
class Unknown:
    """The record was sent and no answer came: it may have taken effect. Retried where the sink is idempotent. `code` as in `Retry`."""

    reason: str
    code: str = field(default="sink.no_answer", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", redact(self.reason))

    @classmethod
    def of(cls, error: RetriableError) -> Unknown:
        """What an error means that leaves open whether there was an effect."""
        return cls(str(error), error.code)


Verdict = Ok | Retry | Dead | Unknown
